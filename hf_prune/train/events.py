"""What callbacks see: one epoch, though it be trained in several rounds, and the user's own rows in its loader."""

from collections.abc import Iterator
from typing import Any

from .collator import PARTS, ROW


class RoundEvents:
    """The trainer's callback handler during one round, one of several in an epoch; everything else is the handler's.

    Args:
        handler: The trainer's `CallbackHandler`.
        epoch: From 0.
        begin: Steps of an epoch over all rows before the round.
        end: And with it.
        steps: All of these steps.
    """

    def __init__(self, handler: Any, epoch: int, begin: float, end: float, steps: int):
        own = {"_handler": handler, "_epoch": epoch, "_begin": begin, "_end": end, "_steps": steps}
        self.__dict__.update(own)  # all that is set later is the handler's

    def __getattr__(self, name: str):
        return getattr(self._handler, name)

    def __setattr__(self, name: str, value: Any):
        setattr(self._handler, name, value)

    def on_step_end(self, args, state, control):
        """As the handler's, after `state.epoch`, which counts the round as an epoch, is set right."""
        done = self._begin + (self._end - self._begin) * (state.epoch - self._epoch)
        state.epoch = self._epoch + done / self._steps
        return self._handler.on_step_end(args, state, control)

    def on_epoch_end(self, args, state, control):
        """As the handler's where the epoch ends, with its last round or before."""
        ends = self._end == self._steps or control.should_epoch_stop or control.should_training_stop
        return self._handler.on_epoch_end(args, state, control) if ends else control


class PlainLoader:
    """The training loader with the user's examples and batches, without row numbers; everything else is the loader's.

    Args:
        loader: Over a `RowDataset`.
    """

    def __init__(self, loader: Any):
        self.__dict__["_loader"] = loader  # all that is set later is the loader's

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            batch.pop(ROW)
            batch.pop(PARTS, None)
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def __class__(self) -> type:
        return self._loader.__class__  # as accelerate's loaders say that they are PyTorch's

    @property
    def dataset(self) -> Any:
        """The user's data set."""
        return self._loader.dataset.dataset

    @property
    def collate_fn(self) -> Any:
        """The user's collator."""
        return self._loader.collate_fn.collator

    def __reduce__(self):
        return type(self), (self._loader,)  # all else that is asked for is the loader's

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def __setattr__(self, name: str, value: Any):
        setattr(self._loader, name, value)


def show_total(handler: Any, steps: int) -> None:
    """Tell progress bars how many optimizer steps the run will take.

    Args:
        handler: The trainer's `CallbackHandler`, among whose callbacks they are.
        steps: As many.
    """
    for callback in handler.callbacks:
        bar = getattr(callback, "training_bar", None) or getattr(callback, "training_tracker", None)
        if bar is not None:
            bar.total = steps
