"""Dynamic data pruning for the Hugging Face `Trainer`: a rule chooses the rows of each epoch by their losses."""

from importlib import import_module
from typing import TYPE_CHECKING

from .core import BudgetPolicy, Clock, Policy, Selection
from .records.history import History

if TYPE_CHECKING:
    from .train.mixin import PruningMixin
    from .train.trainer import PruningSeq2SeqTrainer, PruningTrainer, pruned

__version__ = "0.1.0"
__all__ = [
    "BudgetPolicy",
    "Clock",
    "History",
    "Policy",
    "PruningMixin",
    "PruningSeq2SeqTrainer",
    "PruningTrainer",
    "Selection",
    "pruned",
]


def __getattr__(name: str):
    if name in __all__:  # the trainers import transformers, so they wait until somebody asks
        return getattr(import_module(".train.trainer", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
