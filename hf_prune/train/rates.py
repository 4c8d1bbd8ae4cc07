"""Learning rates of a pruned run: the schedule of the unpruned one, read through the clock of the rounds."""

import inspect
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from .engine import Engine
from .schedule import follow_clock, set_rate


class Rates:
    """Keeps the learning-rate schedule of a trainer on the clock of its latest run.

    A user's own scheduler comes again at the next `train()`, and counts on: it is put on the clock once.
    """

    def __init__(self):
        self._engine: Engine | None = None
        self._scheduler: LambdaLR | None = None
        self._steps_before = 0  # that it had counted when the run began

    def follow(self, scheduler: Any, engine: Engine, step: int) -> None:
        """Put a scheduler on the clock of a run.

        Args:
            scheduler: The trainer's.
            engine: Of the run.
            step: Optimizer steps that the run has done.

        Raises:
            ValueError: The scheduler counts its own steps, and so would end before or after the run.
        """
        scheduler = getattr(scheduler, "scheduler", scheduler)  # DeepSpeed's stands in a wrapper
        self._engine = engine
        if not isinstance(scheduler, LambdaLR):
            self._scheduler = None
            if not (engine.schedule.by_steps or "metrics" in inspect.signature(scheduler.step).parameters):
                raise ValueError(
                    f"The learning-rate scheduler {type(scheduler).__name__} counts its own steps, and a pruned run "
                    "has fewer than the full one. Use a LambdaLR (as lr_scheduler_type gives), or fix the steps by "
                    "max_steps."
                )
            return
        self._steps_before = max(0, scheduler.last_epoch - step)
        if scheduler is not self._scheduler:
            follow_clock(scheduler, self._position, self._scale)
        self._scheduler = scheduler

    def leave(self) -> None:
        """A run without a policy begins: a scheduler that is still on the clock counts real steps."""
        self._engine = None

    def set(self) -> bool:
        """Set the rates anew, after a round has been opened; whether the schedule is on the clock."""
        if self._scheduler is not None:
            set_rate(self._scheduler)
        return self._scheduler is not None

    def _position(self, step: int) -> float:
        if self._engine is None:
            return step
        return self._steps_before + self._engine.position(step - self._steps_before)

    def _scale(self) -> float:
        return 1.0 if self._engine is None else self._engine.lr_scale()
