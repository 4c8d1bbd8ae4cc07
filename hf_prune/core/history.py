"""What training has revealed about each row of a training set.

Size: the fields of `History` are its arrays; `History.empty` and `History.from_arrays` make one.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .features import Features

if TYPE_CHECKING:
    from typing_extensions import Self

NEVER = -1
_TRIES = 3  # without a finite loss, after which we give a row up
IGNORED = -100  # the label of a position that is no target, as in transformers
_FORMER = {"seen": "last_round"}  # names that earlier versions gave to arrays
_OWN = ("loss", "last_round", "tokens", "faults")  # arrays that every History has
_KINDS: dict[str, Any] = {  # of arrays that are not float32
    **dict.fromkeys(("last_round", "tokens"), np.int32),
    **dict.fromkeys(("faults", "blanks"), np.uint8),
    "keys": np.uint64,
}
_COST = ("runs", "rows", "tokens", "seconds")
_LONGEST = 10_000  # characters of a fact


@dataclass
class History:
    """What training has revealed about each of N rows: arrays alone. The only mutable object of the core.

    Attributes:
        loss: (N,) float32, latest finite per-example loss in nats (text: mean over the row's real target tokens);
            NaN = never seen.
        last_round: (N,) int32, the round in which `loss` was measured; -1 = never.
        tokens: (N,) int32, real tokens of the row (input, plus targets of an encoder-decoder); 0 = not known.
        faults: (N,) uint8, times the measured loss was NaN or infinite, as by overflow; saturates at 255.
        signals: Further measurements by name, each (N,) float32, NaN = never seen.
        notes: A policy's own memory by name, arrays of numbers; written by `Policy.begin` and `Policy.update` alone.
        blanks: (N,) uint8, visits that told nothing, because the row had no target then (a random mask hit no token,
            or all its labels are ignored); saturates at 255. None = there was no such visit.
        features: What the data set tells of its rows, where the policy asks for it; read anew by each run.
        offered: (M,) int64 rows that the round may choose among; None = all. Of the round that is open alone.
        keys: (N,) uint64, a hash of each row's name, which it has in any order of the rows, see `data.keys.row_keys`;
            None = rows are known by their place alone. Not among `arrays()`.
        facts: What it was made with, where that is known: `policy`, `data` (the fingerprint of the training set), `key`
            (the column that `keys` come from), `run` (its name in the files of its rounds, see `records.trace`), `cost`
            (`runs`, `rows`, `tokens` with padding, `seconds`).
    """

    loss: np.ndarray
    last_round: np.ndarray
    tokens: np.ndarray
    faults: np.ndarray
    signals: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    notes: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    blanks: np.ndarray | None = None
    features: Features = Features()
    offered: np.ndarray | None = None
    keys: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def empty(cls, n: int, signals: frozenset[str] | tuple[str, ...] = ()) -> "Self":
        """A history of rows that were never seen.

        Args:
            n: How many.
            signals: Names of what is measured beside the loss.

        Raises:
            ValueError: There are no rows.
        """
        if n < 1:
            raise ValueError(f"History.empty(n={n}): a training set needs at least one row.")
        return cls(
            loss=np.full(n, np.nan, np.float32),
            last_round=np.full(n, NEVER, np.int32),
            tokens=np.zeros(n, np.int32),
            faults=np.zeros(n, np.uint8),
            signals={name: np.full(n, np.nan, np.float32) for name in sorted(set(signals) - {"loss"})},
        )

    def __len__(self):
        return len(self.loss)

    def record(self, rows: np.ndarray, loss: np.ndarray, round: int, **signals: np.ndarray) -> None:
        """Store what a round measured. A loss that is NaN or infinite counts as a fault and changes nothing else.

        Args:
            rows: (K,) int64, distinct.
            loss: (K,) float32, nats.
            round: The round that measured it, from 0.
            **signals: (K,) float32 each, under the names given to `empty`.
        """
        finite = np.isfinite(loss)
        if not finite.all():
            faulty = rows[~finite]
            self.faults[faulty] += self.faults[faulty] < 255
            rows, loss = rows[finite], loss[finite]
            signals = {name: values[finite] for name, values in signals.items()}
        self.loss[rows] = loss
        self.last_round[rows] = round
        for name, values in signals.items():
            self.signals[name][rows] = values

    def record_blanks(self, rows: np.ndarray) -> None:
        """Count visits of `rows`, (K,) int64, distinct, that had no target and so told nothing."""
        if len(rows):
            self.blanks = np.zeros(len(self), np.uint8) if self.blanks is None else self.blanks
            self.blanks[rows] += self.blanks[rows] < 255

    def check_notes(self, policy: object) -> None:
        """Refuse notes that no file can hold, as soon as `policy` has written them.

        Raises:
            TypeError: A note is no array of numbers or switches, or its name is no text.
        """
        for name, note in self.notes.items():
            try:
                dtype = np.asarray(note).dtype
            except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, tensors with a gradient
                dtype = np.dtype(object)
            is_held = dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative
            if not is_held or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    f"{type(policy).__name__} keeps history.notes[{name!r}], a {type(note).__name__} of {dtype}, which "
                    "no checkpoint can hold: notes are arrays of numbers or switches by name. Keep texts as numbers."
                )

    @property
    def never_finite(self) -> np.ndarray:
        """(N,) bool, rows that were measured three times and never had a finite loss."""
        return (self.faults >= _TRIES) & np.isnan(self.loss)

    @property
    def hope(self) -> np.ndarray:
        """(N,) float32, the chance that a row never measured is tried; each visit without a target halves it.

        A row whose target is drawn at random is tried until it has one, and a row that never has one costs little. The
        chance is 0 for a row that was never finite, and 1 for all others.
        """
        hope = np.where(self.never_finite, np.float32(0), np.float32(1))
        if self.blanks is not None:
            rows = np.flatnonzero(np.isnan(self.loss) & (self.blanks > 0))
            hope[rows] *= np.exp2(-self.blanks[rows].astype(np.float32))
        return hope

    def set_aside(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) bool, drawn by `hope`: rows never measured that a budget takes last, in place of first."""
        if self.blanks is None and not self.faults.any():
            return np.zeros(len(self), bool)
        hope = self.hope
        aside = hope == 0
        unsure = np.flatnonzero(~aside & (hope < 1))
        aside[unsure] = rng.random(len(unsure)) >= hope[unsure]
        return aside

    def is_of(self, policy: object) -> bool:
        """Whether a run with a policy of this class made it, as far as is known."""
        name = f"{type(policy).__name__}("
        return (self.facts.get("policy") or name).startswith(name)

    def inherit(self, earlier: "History") -> None:
        """Copy the losses and signals of an earlier run on the same rows, as if round 0 had measured them."""
        known = earlier.last_round > NEVER
        self.loss[known] = earlier.loss[known]
        self.last_round[known] = 0
        for name in self.signals.keys() & earlier.signals.keys():
            self.signals[name][known] = earlier.signals[name][known]

    def transfer_from(self, earlier: "History") -> "Self":
        """This one, with what the run so far has measured, where another policy takes over in the middle of it.

        Unlike `inherit`, it keeps the rounds, tokens, faults and blanks of the run, which go on. Notes stay behind.
        """
        known = earlier.last_round > NEVER
        self.loss[known], self.last_round[known] = earlier.loss[known], earlier.last_round[known]
        self.tokens = np.where(earlier.tokens > 0, earlier.tokens, self.tokens)
        self.faults, self.blanks = earlier.faults, earlier.blanks
        for name in self.signals.keys() & earlier.signals.keys():
            self.signals[name][known] = earlier.signals[name][known]
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that lasts, by name; those of `signals` and `notes` as "signals/NAME" and "notes/NAME"."""
        own = {name: getattr(self, name) for name in _OWN}
        if self.blanks is not None:
            own["blanks"] = self.blanks
        signals = {f"signals/{name}": array for name, array in self.signals.items()}
        return own | signals | {f"notes/{name}": array for name, array in self.notes.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], rows: int | None = None) -> "Self":
        """The history whose `arrays()` these are.

        Args:
            arrays: By name; other names are left alone.
            rows: Number of rows that it must have; None = any.

        Raises:
            ValueError: The number of rows is another than `rows`, or an array is missing or of another kind.
        """
        arrays = {_FORMER.get(name, name): array for name, array in arrays.items()}
        if lost := [name for name in _OWN if name not in arrays]:
            raise ValueError(f"This is no History: it lacks {', '.join(lost)}.")
        if rows is not None and arrays["loss"].ndim == 1 and len(arrays["loss"]) != rows:
            raise ValueError(
                f"This History is of {len(arrays['loss'])} rows, but the training set has {rows}. "
                "A History belongs to one training set, in one order: give the one it was made with."
            )
        groups = {
            group: {name.removeprefix(group): array for name, array in arrays.items() if name.startswith(group)}
            for group in ("signals/", "notes/")
        }
        own = (arrays[name] for name in _OWN)
        return cls(*own, signals=groups["signals/"], notes=groups["notes/"], blanks=arrays.get("blanks")).check()

    def check(self) -> "Self":
        """Check that arrays and facts are of the kinds above, whoever has made them.

        Returns:
            This history.

        Raises:
            ValueError: An array of another length or type; a loss that is infinite, or missing where a row was seen; a
                count below 0; a fact of another kind.
        """
        arrays: dict[str, Any] = {} if self.keys is None else {"keys": self.keys}
        arrays |= {name: array for name, array in self.arrays().items() if not name.startswith("notes/")}
        n: Any = np.asarray(self.loss).shape[:1]
        for name, array in arrays.items():
            kind, found = np.dtype(_KINDS.get(name, np.float32)), np.asarray(array)
            if found is not array or found.dtype != kind or found.shape != n or n in ((), (0,)):
                raise ValueError(f"This is no History: {name} must be (N,) {kind}, got {found.dtype} {found.shape}.")
        if wrong := [name for name, note in self.notes.items() if np.asarray(note).dtype.kind not in "biuf"]:
            raise ValueError(f"This is no History: notes/{wrong[0]} must be an array of numbers.")
        if np.isinf(self.loss).any() or (np.isnan(self.loss) & (self.last_round > NEVER)).any():
            raise ValueError("This is no History: a row that was seen has no finite loss.")
        for name, least in (("last_round", NEVER), ("tokens", 0)):
            if (getattr(self, name) < least).any():
                raise ValueError(f"This is no History: {name} must be {least} or more.")
        for name, kinds in {"policy": str, "key": str, "run": str, "data": int, "cost": dict}.items():
            fact = self.facts.get(name)
            if not isinstance(fact, (kinds, type(None))) or (isinstance(fact, str) and len(fact) > _LONGEST):
                raise ValueError(f"This is no History: its {name} must be a {kinds.__name__}, got {fact!r:.60}.")
        cost: dict[str, Any] = self.facts.get("cost") or dict.fromkeys(_COST, 0)
        if not all(isinstance(cost.get(name), (int, float)) and 0 <= cost[name] < math.inf for name in _COST):
            raise ValueError(f"This is no History: its cost must be {', '.join(_COST)}, 0 or more, got {cost!r:.60}.")
        return self
