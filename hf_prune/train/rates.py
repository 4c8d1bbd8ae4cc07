"""Learning rates of a pruned run: the schedule of the unpruned run, at the position that the clock gives."""

import inspect
import weakref
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from .engine import Engine
from .schedule import follow_clock, set_rate


class Rates:
    """Makes a trainer's learning-rate schedule follow the clock of the latest run.

    A user's own scheduler is used again in the next `train()` and keeps counting, so it is put on the clock only once.
    """

    def __init__(self):
        self._engine: Engine | None = None
        # held weakly: the scheduler's factors hold this object, and through the engine the model
        self._scheduler: weakref.ref[LambdaLR] | None = None
        self._steps_before = 0  # steps that the scheduler had counted when the run began

    def follow(self, scheduler: Any, engine: Engine, step: int) -> None:
        """Put a scheduler on the clock of a run.

        Args:
            scheduler: The trainer's scheduler.
            engine: The engine of the run.
            step: Optimizer steps that the run has done.

        Raises:
            ValueError: The scheduler counts its own steps, so it would end before or after the run.
        """
        scheduler = getattr(scheduler, "scheduler", scheduler)  # DeepSpeed wraps it
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
        if self._scheduler is None or scheduler is not self._scheduler():
            follow_clock(scheduler, self._position, self._scale)
        self._scheduler = weakref.ref(scheduler)

    def leave(self) -> None:
        """Let the scheduler count real steps again, because a run without a policy begins."""
        self._engine = None

    def set(self) -> bool:
        """Set the learning rates for a round that was just opened. Return whether the schedule follows the clock."""
        scheduler = None if self._scheduler is None else self._scheduler()
        if scheduler is not None:
            set_rate(scheduler)
        return scheduler is not None

    def _position(self, step: int) -> float:
        if self._engine is None:
            return step
        return self._steps_before + self._engine.position(step - self._steps_before)

    def _scale(self) -> float:
        return 1.0 if self._engine is None else self._engine.lr_scale()
