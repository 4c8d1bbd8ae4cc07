"""What a run's log says beside the losses, and the seconds that evaluations take."""

import time
from contextlib import contextmanager


class LogsMixin:
    """The part of `PruningMixin` that logs and evaluates."""

    def evaluate(self, *args, **kwargs):
        """As stock; its seconds are counted."""
        with self._evaluation():
            return super().evaluate(*args, **kwargs)

    def _evaluate(self, *args, **kwargs):  # calls `evaluate`, which may be a subclass's own
        with self._evaluation():
            return super()._evaluate(*args, **kwargs)

    @contextmanager
    def _evaluation(self):
        if self._run is None or not self.is_in_train:
            yield
            return
        self._count()
        if self.args.dataloader_num_workers:
            self._run.learner.wait()  # its thread must not run where the loader forks
        state, start = self._run.state, time.perf_counter()
        before, was = state.seconds_evaluating, self._is_evaluating
        self._is_evaluating = True
        try:
            with self._run.pause():
                yield  # may come here again: a dictionary of data sets makes an evaluation of each
        finally:
            self._is_evaluating = was
            state.seconds_evaluating = before + time.perf_counter() - start

    def log(self, logs, *args, **kwargs):
        """As stock; in a round, logs of losses and evaluations also say what was kept, trained and measured so far."""
        counts = {}
        if self._run is not None and self._run.state.round is not None and ("loss" in logs or self._is_evaluating):
            counts = self._run.counts()
        if counts and not self._is_evaluating:
            logs = {**logs, **self._run.progress(), **counts}
        entries = len(self.state.log_history)
        super().log(logs, *args, **kwargs)
        if self._is_evaluating and len(self.state.log_history) > entries:
            self.state.log_history[-1] |= counts  # the metrics themselves are whoever evaluates'

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if self.policy is None:
            return super()._maybe_log_save_evaluate(*args, **kwargs)
        self._run.check_begun()
        with self._run.pause():
            if self.control.should_log and self.state.global_step > self._globalstep_last_logged:  # as stock logs
                self._count()
            super()._maybe_log_save_evaluate(*args, **kwargs)

    def _count(self):
        """What all processes have trained so far, for the log: that may be written on one of them alone."""
        self._run.count()
