"""Scores the training rows with a trainer's model as it is: forward passes alone, in parts that survive a kill."""

import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm
from transformers import Trainer

from ..common import storage
from ..core import Clock, Policy, Selection
from ..core.ranking import marked
from ..data.columns import file_rows_of
from ..data.fingerprint import fingerprint
from ..data.keys import row_keys
from ..data.kinds import is_arrow
from ..measure.meter import Meter
from ..measure.recorder import Measurements, Recorder
from ..records.history import History
from ..records.history_file import HISTORY
from ..records.table import ROWS, write_rows
from .ranks import Ranks
from .recording import record
from .rescore import rescore
from .rows import TrainingRows, check_equal_rows, lengths_of

_PARTS = "_scored"  # folder of the parts; uploads leave out names with an underscore
_BATCHES = 256  # of each process, in a part
_WANTED = frozenset({"loss", "correct", "confidence"})
_SAMPLE = 1000  # values of each tensor that tell one model from another


@dataclass(frozen=True)
class _Signals(Policy):
    """Stands for the policy of a run: it names the signals to measure, and selects nothing."""

    wanted: frozenset[str] = frozenset()

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.wanted

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:  # pyright: ignore
        return Selection(np.arange(len(history)))


@dataclass
class _Part:
    """Rows that were measured together.

    Attributes:
        measured: Their measurements, of all processes.
        seconds: What that took.
    """

    measured: Measurements
    seconds: float

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the part, with the facts that tell which model has measured which rows."""
        arrays = {"rows": self.measured.rows, "tokens": self.measured.tokens, "values": self.measured.values}
        counts = {"positions": self.measured.padded_tokens, "seconds": self.seconds}
        storage.save(path, arrays, {"kind": "part", "facts": facts, **counts})

    @classmethod
    def load(cls, path: Path, facts: dict[str, Any]) -> "_Part | None":
        """Read a part; None if it is damaged, or of another model or other rows: its rows are measured again."""
        try:
            arrays, header = storage.load(path)
        except storage.DamagedFile:
            return None
        if header.get("facts") != facts:
            return None
        measured = Measurements(arrays["rows"], arrays["tokens"], arrays["values"], header["positions"])
        return cls(measured, header["seconds"])


@dataclass
class _Found:
    """What a folder holds when scoring begins.

    Attributes:
        history: The History of an earlier call that had ended; None = there is none.
        seen: (N,) bool, rows that an earlier call has measured.
        refusal: Why the folder can't be used; None = it can.
    """

    seen: np.ndarray
    history: History | None = None
    refusal: str | None = None


@dataclass
class Scoring:
    """Measures the rows of one trainer, on all processes.

    Args:
        trainer: Has the model and the rows.
        training: The numbered rows.
        make_meter: Makes the meter of a policy.
        key: Column that names each row; None = a row is known by its position.
        warn: Logs a warning, on the main process only.
    """

    trainer: Trainer
    training: TrainingRows
    make_meter: Callable[[Policy], Meter]
    key: str | None
    warn: Callable[[str], None]
    _parts: list[_Part] = field(default_factory=list[_Part], init=False)  # of the main process

    def run(self, folder: Path | None) -> History:
        """See `PruningMixin.score_rows`."""
        trainer, n = self.trainer, len(self.training.data)
        check_equal_rows(trainer, self.training.data)
        meter = self._meter()
        facts = {"data": fingerprint(self.training.data), "key": self.key, "model": _checksum(trainer.model)}
        begun = facts | {"rows": n, "signals": list(meter.signals)}
        found = _Found(np.zeros(n, bool))
        if folder is not None and trainer.is_world_process_zero():
            found = self._look(folder, begun)
        (found,) = broadcast_object_list([found])
        if found.refusal is not None:
            raise ValueError(found.refusal)
        if found.history is not None:
            return found.history
        self._measure(meter, found.seen, folder, begun)
        made: list[Any] = [None]
        if trainer.is_world_process_zero():
            if finding := meter.finding():
                self.warn(finding)
            made = [self._history(meter, facts)]
            if folder is not None:
                self._write(made[0], folder)
        return broadcast_object_list(made)[0]

    def _meter(self) -> Meter:
        gives = self.make_meter(_Signals()).gives
        meter = self.make_meter(_Signals(gives & _WANTED))
        meter.extras = ()
        if not gives:
            raise _unread(self.trainer, meter)
        return meter

    def _look(self, folder: Path, begun: dict[str, Any]) -> _Found:
        """Read what an earlier call has left in the folder."""
        seen = np.zeros(begun["rows"], bool)
        if (folder / HISTORY).exists():
            history = History.load(folder / HISTORY)
            same = all(history.facts.get(name) == begun[name] for name in ("data", "key", "model"))
            if same and len(history) == len(seen):
                return _Found(seen, history)
            refusal = f"{folder} holds a History of another model or of other rows; give another folder, or remove it."
            return _Found(seen, refusal=refusal)
        parts = [_Part.load(path, begun) for path in sorted((folder / _PARTS).glob("part-*"))]
        self._parts = [part for part in parts if part is not None]
        for part in self._parts:
            seen[part.measured.rows] = True
        return _Found(seen)

    def _measure(self, meter: Meter, seen: np.ndarray, folder: Path | None, begun: dict[str, Any]) -> None:
        trainer, ranks = self.trainer, Ranks(self.trainer.accelerator)
        order = _by_length(trainer, self.training.data)
        rows = order[~seen[order]]
        size = _BATCHES * trainer._train_batch_size * trainer.args.world_size
        quiet = trainer.args.disable_tqdm or not trainer.is_local_process_zero()
        with tqdm(total=len(seen), initial=len(seen) - len(rows), desc="Scoring", unit="row", disable=quiet) as bar:
            for begin in range(0, len(rows), size):
                start, recorder = time.perf_counter(), Recorder(len(meter.signals))
                with trainer.accelerator.autocast():
                    rescore(trainer, self.training, rows[begin : begin + size], meter, recorder)
                measured = recorder.collect(ranks.join)
                if meter.by_batch:  # the first batch has shown it
                    raise _unread(trainer, meter)
                if ranks.is_main:
                    part = _Part(measured, time.perf_counter() - start)
                    self._parts.append(part)
                    if folder is not None:
                        # by its first row: no other part has it, whatever sizes the parts of earlier calls had
                        part.save(folder / _PARTS / f"part-{measured.rows[0]}.safetensors", begun)
                bar.update(len(rows[begin : begin + size]))

    def _history(self, meter: Meter, facts: dict[str, Any]) -> History:
        n = len(self.training.data)
        history = History.empty(n, meter.signals)
        for part in self._parts:
            rows, tokens, values = part.measured.by_row(marked(part.measured.rows, n))
            record(history, 0, meter, rows, tokens, values)
        if self.key is not None:
            history.keys = row_keys(self.training.data, self.key)
        cost = {
            "runs": 1,
            "rows": sum(len(part.measured.rows) for part in self._parts),
            "tokens": sum(part.measured.padded_tokens for part in self._parts),
            "seconds": sum(part.seconds for part in self._parts),
        }
        history.facts = facts | {"cost": cost}
        return history

    def _write(self, history: History, folder: Path) -> None:
        """Write the table, then the History, which shows that all is there, and remove the parts."""
        try:
            write_rows(folder / ROWS, history, file_rows=file_rows_of(self.training.data))
        except Exception as error:  # any error: the table is for people, and the losses must still be saved
            self.warn(f"{folder / ROWS} could not be written ({type(error).__name__}: {error}).")
        history.save(folder / HISTORY)
        shutil.rmtree(folder / _PARTS, ignore_errors=True)


def check_scorable(trainer: Trainer) -> None:
    """Refuse a trainer whose rows or model can't be scored.

    Raises:
        ValueError: Its rows have no numbers, or its model is in shards.
    """
    data: Any = trainer.train_dataset
    if not isinstance(data, Sized) or isinstance(data, IterableDataset | Mapping) or len(data) == 0:
        raise ValueError(
            f"score_rows() measures rows by number, but train_dataset is a {type(data).__name__} without numbered "
            "rows. Give one data set with a length."
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "score_rows() needs the whole model in each process, but FSDP and DeepSpeed share it out. Launch it "
            "without them."
        )


def _unread(trainer: Trainer, meter: Meter) -> ValueError:
    return ValueError(
        f"score_rows() can't read the losses of the rows of {type(trainer.model).__name__}. {meter.why_unread} Give "
        "example_loss_func=(outputs, inputs) -> (B,) losses."
    )


def _by_length(trainer: Trainer, data: Any) -> np.ndarray:
    """Return all rows, (N,) int64: the longest first, so that batches need little padding; else in their order."""
    columns = data.column_names if is_arrow(data) else []
    if {"input_ids", trainer.args.length_column_name}.isdisjoint(columns):
        return np.arange(len(data))
    lengths = lengths_of(trainer, data)
    return np.argsort(-lengths.reshape(len(lengths), -1).sum(axis=1), kind="stable")


def _checksum(model: Any) -> int:
    """Return a checksum of values spread over every tensor of a model: a model that was trained on has another."""
    value = 0
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            sample = tensor.detach().flatten()[:: tensor.numel() // _SAMPLE + 1].float().cpu()
            value = zlib.crc32(sample.numpy().tobytes(), zlib.crc32(name.encode(), value))
    return value
