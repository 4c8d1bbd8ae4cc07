"""What a terminal shows of a run: Trainer's own bar, also for selecting and rescoring, and a line for each epoch."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from transformers import Trainer

from ..core import History
from .owned import Owned
from .rounds import RoundResult


class Progress(Owned):
    """Writes on the training bar of a trainer; without one (`disable_tqdm=True`, other processes) it does nothing.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Trainer):
        super().__init__(trainer)
        self._begun = time.perf_counter(), 0  # when this process began to train, and the optimizer steps done by then
        self._trained: np.ndarray | None = None

    def begin(self) -> None:
        """Note that training begins, or resumes, now."""
        self._begun = time.perf_counter(), self.trainer.state.global_step

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within the block, the bar says what is done in place of training."""
        self._describe(name)
        try:
            yield
        finally:
            self._describe("")

    def over(self, name: str, batches: Iterable[Any], total: int) -> Iterator[Any]:
        """Iterate over batches; the bar says how many per cent are done.

        Args:
            name: What is done with them.
            batches: The batches.
            total: Their number.
        """
        with self.part(name):
            shown = 0
            for number, batch in enumerate(batches):
                if (done := 100 * number // max(total, 1)) > shown:
                    self._describe(f"{name} {done} %")
                    shown = done
                yield batch

    def see(self, result: RoundResult) -> None:
        """Note which rows a round has trained, for the line of its epoch."""
        if self._bars():
            trained = result.losses[0][0]
            self._trained = trained if self._trained is None else self._trained | trained

    def end_epoch(self, account: dict[str, Any], epochs: float, history: History) -> None:
        """Write the line of an epoch that has ended.

        Args:
            account: Its account, see `PruningReport.epochs`.
            epochs: Epochs of the run.
            history: The History; it has the losses of the rows.
        """
        trained, self._trained = self._trained, None
        if trained is None or not (bars := self._bars()):
            return
        words = [f"kept {100 * account['rows'] / max(account['rows_offered'], 1):.1f} %"]
        if account["padded_tokens"] and account.get("padding"):
            words.append(f"padding {100 * account['padding'] / account['padded_tokens']:.1f} %")
        for name, rows in (("kept", trained), ("left out", ~trained)):
            losses = history.loss[rows]
            losses = losses[~np.isnan(losses)]
            if len(losses):
                words.append(f"loss {name} {losses.mean(dtype=np.float64):.3g}")
        state, (start, step) = self.trainer.state, self._begun
        if state.global_step > step:
            rate = (time.perf_counter() - start) / (state.global_step - step)
            words.append(f"{rate * max(state.max_steps - state.global_step, 0):,.0f} s left")
        bars[0].write(f"epoch {account['epoch'] + 1} of {epochs:g}: {', '.join(words)}")

    def _bars(self) -> list[Any]:
        handler: Any = self.trainer.callback_handler
        bars = (getattr(callback, "training_bar", None) for callback in handler.callbacks)
        return [bar for bar in bars if bar is not None]

    def _describe(self, text: str) -> None:
        for bar in self._bars():
            bar.set_description_str(text)
