"""The parts of a pruning trainer know it without holding it, so that `del trainer` frees its memory at once.

Trainer itself is freed so. A part that held the trainer, which holds the part, would keep the model in memory until
Python looks for such circles: on a GPU, too late for the next trainer.
"""

import weakref

from transformers import Trainer


class Owner:
    """Knows a trainer without holding it.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Trainer):
        self._reference = weakref.ref(trainer)

    def find(self) -> Trainer | None:
        """Return the trainer; None = it was deleted."""
        return self._reference()

    def get(self) -> Trainer:
        """Return the trainer. It holds the part that asks, so it still exists."""
        trainer = self.find()
        assert trainer is not None, "a part of a trainer has outlived it"
        return trainer

    def __deepcopy__(self, memo: dict[int, object]) -> "Owner":
        trainer = self.get()
        copied = memo.get(id(trainer), trainer)  # the copy, if the trainer is being copied and not this part alone
        return Owner(copied if isinstance(copied, Trainer) else trainer)


class Owned:
    """A part of a pruning trainer.

    Args:
        trainer: The trainer; it holds this part, or holds a part that does.
    """

    def __init__(self, trainer: Trainer):
        self.owner = Owner(trainer)

    @property
    def trainer(self) -> Trainer:
        """The trainer."""
        return self.owner.get()
