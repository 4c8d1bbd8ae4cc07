"""The History: what training has measured for each row of a training set.

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
_TRIES = 3  # visits without a finite loss after which we give up a row
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
    """What training has measured for each of N rows, as arrays. It is the only mutable object of the core.

    Attributes:
        loss: (N,) float32, latest finite per-example loss in nats (text: mean over the row's real target tokens);
            NaN = never seen.
        last_round: (N,) int32, the round in which `loss` was measured; -1 = never.
        tokens: (N,) int32, real tokens of the row (input, plus targets of an encoder-decoder); 0 = not known.
        faults: (N,) uint8, times that the measured loss was NaN or infinite, for example by overflow; saturates at 255.
        signals: Further measurements by name, each (N,) float32, NaN = never seen.
        notes: The policy's own memory by name, arrays of numbers. Only `Policy.begin` and `Policy.update` write it.
        blanks: (N,) uint8, visits without a loss, because the row had no target in them (a random mask hit no token, or
            all labels are ignored); saturates at 255. None = there was no such visit.
        features: What the data set contains about its rows, if the policy needs it; each run reads it again.
        offered: (M,) int64, rows that the present round may choose among; None = all.
        keys: (N,) uint64, a hash of each row's name, the same in any order of the rows, see `data.keys.row_keys`;
            None = rows are known only by their position. Not among `arrays()`.
        facts: Origin of the History, as far as known: `policy`, `data` (the fingerprint of the training set), `key`
            (the column that `keys` come from), `run` (the name of the run in the files of its rounds, see
            `records.trace`), `cost` (`runs`, `rows`, `tokens` with padding, `seconds`).
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
        """Make a History of rows that were never seen.

        Args:
            n: Number of rows.
            signals: Names of the signals measured besides the loss.

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
        """Store the measurements of a round. A loss that is NaN or infinite counts as a fault and changes nothing else.

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
        """Count a visit without a target, and so without a loss, for each of `rows`, (K,) int64, distinct."""
        if len(rows):
            self.blanks = np.zeros(len(self), np.uint8) if self.blanks is None else self.blanks
            self.blanks[rows] += self.blanks[rows] < 255

    def check_notes(self, policy: object) -> None:
        """Refuse notes that can't be saved in a file, right after `policy` has written them.

        Raises:
            TypeError: A note is not an array of numbers or booleans, or its name is not a string.
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
        """(N,) float32, the chance that a row without a measured loss is tried again.

        Each visit without a target halves it. So a row whose target is drawn at random is tried until it has one, and a
        row that never has a target costs little. The chance is 0 for a row in `never_finite`, and 1 for all others.
        """
        hope = np.where(self.never_finite, np.float32(0), np.float32(1))
        if self.blanks is not None:
            rows = np.flatnonzero(np.isnan(self.loss) & (self.blanks > 0))
            hope[rows] *= np.exp2(-self.blanks[rows].astype(np.float32))
        return hope

    def set_aside(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the rows that a budget takes last: (N,) bool, unmeasured rows that are not tried again, see `hope`."""
        if self.blanks is None and not self.faults.any():
            return np.zeros(len(self), bool)
        hope = self.hope
        aside = hope == 0
        unsure = np.flatnonzero(~aside & (hope < 1))
        aside[unsure] = rng.random(len(unsure)) >= hope[unsure]
        return aside

    def is_of(self, policy: object) -> bool:
        """Whether a policy of this class made the History. True if the policy is not known."""
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
        """Copy the measurements of the same run under another policy, and return this History.

        Unlike `inherit`, it also takes over the rounds, tokens, faults and blanks, because the run continues. Notes are
        not copied: they belong to the other policy.
        """
        known = earlier.last_round > NEVER
        self.loss[known], self.last_round[known] = earlier.loss[known], earlier.last_round[known]
        self.tokens = np.where(earlier.tokens > 0, earlier.tokens, self.tokens)
        self.faults, self.blanks = earlier.faults, earlier.blanks
        for name in self.signals.keys() & earlier.signals.keys():
            self.signals[name][known] = earlier.signals[name][known]
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every array to save, by name; `signals` and `notes` are under "signals/NAME" and "notes/NAME"."""
        own = {name: getattr(self, name) for name in _OWN}
        if self.blanks is not None:
            own["blanks"] = self.blanks
        signals = {f"signals/{name}": array for name, array in self.signals.items()}
        return own | signals | {f"notes/{name}": array for name, array in self.notes.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], rows: int | None = None) -> "Self":
        """Make a History from the result of `arrays()`.

        Args:
            arrays: Arrays by name; unknown names are ignored.
            rows: Number of rows that the History must have; None = any.

        Raises:
            ValueError: The number of rows differs from `rows`, or an array is missing or has the wrong type.
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
        """Check that arrays and facts have the types above. Files and users may have made them.

        Returns:
            This History.

        Raises:
            ValueError: An array has the wrong length or type; a loss is infinite, or missing for a row that was seen; a
                count is below 0; a fact has the wrong type.
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
