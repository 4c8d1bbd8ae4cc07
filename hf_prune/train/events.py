"""What callbacks see: one epoch, even if it has several rounds, and a loader of the user's own rows."""

from collections.abc import Iterator
from typing import Any

from .collator import PARTS, ROW


class RoundEvents:
    """The trainer's callback handler during one of several rounds of an epoch. All other attributes are the handler's.

    Args:
        handler: The trainer's `CallbackHandler`.
        epoch: Number of the epoch, from 0.
        begin: Steps of the unpruned epoch that are done before the round.
        end: Steps of the unpruned epoch that are done after the round.
        steps: All steps of the unpruned epoch.
    """

    def __init__(self, handler: Any, epoch: int, begin: float, end: float, steps: int):
        own = {"_handler": handler, "_epoch": epoch, "_begin": begin, "_end": end, "_steps": steps}
        self.__dict__.update(own)  # attributes set later go to the handler

    def __getattr__(self, name: str):
        return getattr(self._handler, name)

    def __setattr__(self, name: str, value: Any):
        setattr(self._handler, name, value)

    def on_step_end(self, args, state, control):
        """Correct `state.epoch`, then call the handler's method. Trainer has counted the round as a whole epoch."""
        done = self._begin + (self._end - self._begin) * (state.epoch - self._epoch)
        state.epoch = self._epoch + done / self._steps
        return self._handler.on_step_end(args, state, control)

    def on_epoch_end(self, args, state, control):
        """Call the handler's method if the epoch ends here, with its last round or earlier."""
        ends = self._end == self._steps or control.should_epoch_stop or control.should_training_stop
        return self._handler.on_epoch_end(args, state, control) if ends else control


class PlainLoader:
    """The training loader with the user's examples and batches, without row numbers. All else is the loader's.

    Args:
        loader: A loader over a `RowDataset`.
    """

    def __init__(self, loader: Any):
        self.__dict__["_loader"] = loader  # attributes set later go to the loader

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            batch.pop(ROW)
            batch.pop(PARTS, None)
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def __class__(self) -> type:
        return self._loader.__class__  # isinstance must see the loader's class; accelerate's loaders do the same

    @property
    def dataset(self) -> Any:
        """The user's data set."""
        return self._loader.dataset.dataset

    @property
    def collate_fn(self) -> Any:
        """The user's collator."""
        return self._loader.collate_fn.collator

    def __reduce__(self):
        return type(self), (self._loader,)  # without this, `__getattr__` would pickle the inner loader instead

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def __setattr__(self, name: str, value: Any):
        setattr(self._loader, name, value)


def show_total(handler: Any, steps: int) -> None:
    """Set the total of the progress bars.

    Args:
        handler: The trainer's `CallbackHandler`; its callbacks include the progress bars.
        steps: Optimizer steps that the run will take.
    """
    for callback in handler.callbacks:
        bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
        if bar is not None:
            bar.total = steps
