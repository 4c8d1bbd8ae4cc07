"""The drop-in trainers, and the class of any other trainer with a `policy`."""

import copyreg
import types
from functools import cache

from transformers import Seq2SeqTrainer, Trainer

from .mixin import PruningMixin


class PruningTrainer(PruningMixin, Trainer):
    """`transformers.Trainer` with a `policy`; everything else is as there.

    Examples:
        trainer = PruningTrainer(model=model, args=args, train_dataset=train, policy="infobatch")
    """


class PruningSeq2SeqTrainer(PruningMixin, Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer` with a `policy`; everything else is as there."""


class _Pruned(type):
    """The type of the classes that `pruned` makes; they are pickled as the call that makes them."""


@cache
def _type_for(metaclass: type) -> type:
    """The type of the class that is made of one whose own is `metaclass`, such as `abc.ABCMeta`."""
    made = _Pruned if metaclass is type else type(f"_Pruned{metaclass.__name__}", (_Pruned, metaclass), {})
    copyreg.pickle(made, _reduce)  # pyright: ignore[reportArgumentType]
    return made


_PRUNED: dict[type, type] = {Trainer: PruningTrainer, Seq2SeqTrainer: PruningSeq2SeqTrainer}


def pruned(cls: type[Trainer]) -> type[PruningTrainer]:
    """Make the class of a trainer with a `policy` out of any that descends from `transformers.Trainer`.

    Args:
        cls: The trainer's class, such as TRL's SFTTrainer.

    Returns:
        The class that `class PruningSFTTrainer(PruningMixin, SFTTrainer)` would be, a `PruningTrainer` besides; always
        the same for the same `cls`. It can be pickled wherever `cls` can.

    Raises:
        TypeError: `cls` is no such class, or takes a `policy` already.

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
    return (pruned, (base,)) if _PRUNED.get(base) is cls else cls.__qualname__  # a user's subclass has a name
