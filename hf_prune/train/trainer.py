"""The drop-in trainers, and a function that makes one from any other trainer class."""

import copyreg
import types
from functools import cache

from transformers import Seq2SeqTrainer, Trainer

from .mixin import PruningMixin


class PruningTrainer(PruningMixin, Trainer):
    """`transformers.Trainer` with a `policy`; everything else is the same.

    Examples:
        trainer = PruningTrainer(model=model, args=args, train_dataset=train, policy="infobatch")
    """


class PruningSeq2SeqTrainer(PruningMixin, Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer` with a `policy`; everything else is the same."""


class _Pruned(type):
    """The metaclass of the classes that `pruned` makes. Such a class is pickled as a call of `pruned`."""


@cache
def _type_for(metaclass: type) -> type:
    """Return the metaclass for a class that `pruned` makes from one with a `metaclass`, such as `abc.ABCMeta`."""
    made = _Pruned if metaclass is type else type(f"_Pruned{metaclass.__name__}", (_Pruned, metaclass), {})
    copyreg.pickle(made, _reduce)  # pyright: ignore[reportArgumentType]
    return made


_PRUNED: dict[type, type] = {Trainer: PruningTrainer, Seq2SeqTrainer: PruningSeq2SeqTrainer}


def pruned(cls: type[Trainer]) -> type[PruningTrainer]:
    """Make a trainer class with a `policy` from any class that descends from `transformers.Trainer`.

    Args:
        cls: The trainer's class, such as TRL's SFTTrainer.

    Returns:
        A class like `class PruningSFTTrainer(PruningMixin, SFTTrainer)`, which is also a subclass of `PruningTrainer`.
        The same `cls` always gives the same class. It can be pickled if `cls` can.

    Raises:
        TypeError: `cls` does not descend from `transformers.Trainer`, or already takes a `policy`.

    Examples:
        trainer = pruned(SFTTrainer)(model=model, args=args, train_dataset=train, policy="infobatch")
    """
    if not (isinstance(cls, type) and issubclass(cls, Trainer)):
        raise TypeError(f"pruned(cls={cls!r}): cls must be a subclass of transformers.Trainer.")
    if issubclass(cls, PruningMixin):
        raise TypeError(f"pruned(cls={cls.__name__}): this class takes a policy already; use it as it is.")
    if cls not in _PRUNED:
        doc = f"`{cls.__module__}.{cls.__qualname__}` with a `policy`; everything else is as there."
        keywords = {"metaclass": _type_for(type(cls))}
        names = {"__doc__": doc, "__module__": __name__}
        made = types.new_class(f"Pruning{cls.__name__}", (PruningTrainer, cls), keywords, lambda own: own.update(names))
        _PRUNED[cls] = made
    return _PRUNED[cls]


def _reduce(cls: type) -> str | tuple:
    base = cls.__bases__[-1]
    return (pruned, (base,)) if _PRUNED.get(base) is cls else cls.__qualname__  # a user's subclass is found by name
