"""Three nouns and a clock: a `History` goes in, a `Selection` comes out, a `Policy` stands between."""

import abc
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from . import storage
from .features import Features
from .ranking import marked, ranked, top

NEVER = -1
_TRIES = 3  # without a finite loss, after which a row is hopeless
FACTS = frozenset({"tokens", "features", "classes"})  # what a policy may need beside signals: read before training
IGNORED = -100  # the label of a position that is no target, as in transformers
_OWN = ("loss", "seen", "tokens", "faults")  # arrays that every History has
_KINDS: dict[str, Any] = {  # of arrays that are not float32
    **dict.fromkeys(("seen", "tokens"), np.int32),
    **dict.fromkeys(("faults", "blanks"), np.uint8),
    "keys": np.uint64,
}
_COST = ("runs", "rows", "tokens", "seconds")
_LONGEST = 10_000  # characters of a fact


@dataclass
class History:
    """What training has revealed about each of N rows. The only mutable object; saved whole in every checkpoint.

    Attributes:
        loss: (N,) float32, latest finite per-example loss in nats (text: mean over the row's real target tokens);
            NaN = never seen.
        seen: (N,) int32, the round in which `loss` was measured; -1 = never.
        tokens: (N,) int32, real tokens of the row (input, plus targets of an encoder-decoder); 0 = not known.
        faults: (N,) uint8, times the measured loss was NaN or infinite, as by overflow; saturates at 255.
        signals: Further measurements by name, each (N,) float32, NaN = never seen.
        notes: A policy's own memory by name, arrays of numbers; written by `Policy.begin` and `Policy.update` alone.
        blanks: (N,) uint8, visits that told nothing, for the row had no target then (a random mask fell on no token,
            all its labels are ignored); saturates at 255. None = there was no such visit.
        features: What the data set tells of its rows, where the policy asks for it; not saved.
        offered: (M,) int64 rows that the round may choose among; None = all. Not saved.
        keys: (N,) uint64, a hash of what names each row whatever its place, see `keys.row_keys`; None = rows go by
            their place alone. In a file of its own, not in a checkpoint.
        facts: What it was made with, where that is known: `policy`, `data` (the fingerprint of the training set), `key`
            (the column that `keys` are of), `run` (the name that its rounds bear, see `trace.py`), `cost` (`runs`,
            `rows`, `tokens` with padding, `seconds`). As `keys`.
    """

    loss: np.ndarray
    seen: np.ndarray
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
    def empty(cls, n: int, signals: frozenset[str] | tuple[str, ...] = ()) -> "History":
        """A history of `n` rows that were never seen, with room for `signals` beside the loss."""
        if n < 1:
            raise ValueError(f"History.empty(n={n}): a training set needs at least one row.")
        return cls(
            loss=np.full(n, np.nan, np.float32),
            seen=np.full(n, NEVER, np.int32),
            tokens=np.zeros(n, np.int32),
            faults=np.zeros(n, np.uint8),
            signals={name: np.full(n, np.nan, np.float32) for name in sorted(set(signals) - {"loss"})},
        )

    def __len__(self):
        return len(self.loss)

    def record(self, rows: np.ndarray, loss: np.ndarray, round: int, **signals: np.ndarray) -> None:
        """Take in what a round measured; a loss that is NaN or infinite counts as a fault and changes nothing else.

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
        self.seen[rows] = round
        for name, values in signals.items():
            self.signals[name][rows] = values

    def record_blanks(self, rows: np.ndarray) -> None:
        """Take in visits of `rows`, (K,) int64, distinct, that told nothing for want of a target."""
        if len(rows):
            self.blanks = np.zeros(len(self), np.uint8) if self.blanks is None else self.blanks
            self.blanks[rows] += self.blanks[rows] < 255

    def check_notes(self, policy: "Policy") -> None:
        """Refuse notes that no checkpoint could hold, as soon as `policy` has written them.

        Raises:
            TypeError: A note is no array of numbers or switches, or what it goes by is no text.
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
    def hopeless(self) -> np.ndarray:
        """(N,) bool, rows that were measured three times and never had a finite loss."""
        return (self.faults >= _TRIES) & np.isnan(self.loss)

    @property
    def hope(self) -> np.ndarray:
        """(N,) float32, the chance that a row never measured is to get: halved by each visit without a target.

        So one whose target is drawn at random is tried until it has one, and one that never has any costs little. It is
        0 for the hopeless, and 1 for all others.
        """
        hope = np.where(self.hopeless, np.float32(0), np.float32(1))
        if self.blanks is not None:
            rows = np.flatnonzero(np.isnan(self.loss) & (self.blanks > 0))
            hope[rows] *= np.exp2(-self.blanks[rows].astype(np.float32))
        return hope

    def set_aside(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) bool, drawn by their `hope`: rows never measured that a budget takes after all others, not first."""
        if self.blanks is None and not self.faults.any():
            return np.zeros(len(self), bool)
        hope = self.hope
        aside = hope == 0
        unsure = np.flatnonzero(~aside & (hope < 1))
        aside[unsure] = rng.random(len(unsure)) >= hope[unsure]
        return aside

    def is_of(self, policy: "Policy") -> bool:
        """Whether it was made under a policy of this class, as far as is known."""
        name = f"{type(policy).__name__}("
        return (self.facts.get("policy") or name).startswith(name)

    def inherit(self, earlier: "History") -> None:
        """Take in the losses and signals of an earlier run on the same rows, as if round 0 had measured them."""
        known = earlier.seen > NEVER
        self.loss[known] = earlier.loss[known]
        self.seen[known] = 0
        for name in self.signals.keys() & earlier.signals.keys():
            self.signals[name][known] = earlier.signals[name][known]

    def going_on(self, earlier: "History") -> "History":
        """This one, of a policy that begins, with the losses and signals of the run of another that it goes on with."""
        known = earlier.seen > NEVER
        self.loss[known], self.seen[known] = earlier.loss[known], earlier.seen[known]
        self.tokens = np.where(earlier.tokens > 0, earlier.tokens, self.tokens)
        self.faults, self.blanks = earlier.faults, earlier.blanks
        for name in self.signals.keys() & earlier.signals.keys():
            self.signals[name][known] = earlier.signals[name][known]
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array under the name that it has in a file."""
        own = {name: getattr(self, name) for name in _OWN}
        if self.blanks is not None:
            own["blanks"] = self.blanks
        signals = {f"signals/{name}": array for name, array in self.signals.items()}
        return own | signals | {f"notes/{name}": array for name, array in self.notes.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], rows: int | None = None) -> "History":
        """The history whose `arrays()` these are; other names are left alone.

        Raises:
            ValueError: It is of another number of rows than `rows`, or an array is missing or none of a History.
        """
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

    def check(self) -> "History":
        """This one, if its arrays and facts are what they are said to be, whoever has made it.

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
        if np.isinf(self.loss).any() or (np.isnan(self.loss) & (self.seen > NEVER)).any():
            raise ValueError("This is no History: a row that was seen has no finite loss.")
        for name, least in (("seen", NEVER), ("tokens", 0)):
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one checksummed safetensors file, aside first, so that no reader meets half a file."""
        more = {} if self.keys is None else {"keys": self.keys}
        for name, values in self.signals.items():
            more[f"signals/{name}"] = np.where(np.isinf(values), np.float32(np.nan), values)  # as never measured
        storage.save(path, self.arrays() | more, {"kind": "history", **self.facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str], rows: int | None = None) -> "History":
        """Read what `save` wrote.

        Args:
            path: The file.
            rows: Number of rows of the training set at hand; another number in the file is refused.

        Raises:
            ValueError: Another number of rows, a damaged file, or one of something else.
        """
        arrays, facts = storage.load(path)
        if (kind := facts.pop("kind", None)) != "history":
            raise storage.DamagedFile(f"{path} is no History but of the kind {kind!r:.60}.")
        try:
            history = cls.from_arrays(arrays, rows)
            history.keys, history.facts = arrays.get("keys"), facts
            if infinite := [name for name, values in history.signals.items() if np.isinf(values).any()]:
                raise ValueError(
                    f"This is no History: signals/{infinite[0]} is infinite; what was not measured is NaN."
                )
            return history.check()
        except ValueError as error:
            raise storage.DamagedFile(f"{path}: {error}") from error

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> "History":
        """Read what a run, or `push_to_hub`, has left in a folder or on the Hub.

        Args:
            source: The file, the folder that holds it, or the id of a model or a data set on the Hub.
            **options: Those of `huggingface_hub.hf_hub_download`, such as `revision`, `token` and `cache_dir`; without
                `repo_type`, a model of that id goes before a data set.

        Raises:
            ValueError: There is none, it can't be had, or it is damaged.
        """
        from . import hub  # of a higher layer, for those who ask

        return cls.load(hub.find_history(source, **options))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put it on the Hub as a data set of its own, with a table of its rows and a card.

        Args:
            repo_id: "user/name"; made where it does not exist.
            **options: Those of `hub.push_history`: `private`, `token`, `revision`, `commit_message`.

        Returns:
            The address of the commit.
        """
        from . import hub

        return hub.push_history(self, repo_id, **options)


@dataclass(frozen=True)
class Clock:
    """Where training stands when a round begins.

    Attributes:
        round: Number of the round, from 0; losses of earlier rounds are in the History.
        epoch: Number of the epoch, from 0.
        epochs: Passes over the data set that are planned; fractional where `num_train_epochs` or `max_steps` says so.
        share: Share of training done, in [0, 1).
        step_rows: Rows in one optimizer step (batch x accumulation x processes).
        rounds: Rounds in an epoch.
    """

    round: int
    epoch: int
    epochs: float
    share: float
    step_rows: int = 1
    rounds: int = 1

    @property
    def share_after(self) -> float:
        """Share of training done when a full round will have ended, at most 1."""
        return min(1.0, self.share + 1 / (self.epochs * self.rounds)) if self.epochs else 1.0


@dataclass(frozen=True)
class Selection:
    """What to do in one round.

    Attributes:
        rows: (K,) int64, distinct, in [0, N); their order carries no meaning.
        weights: (K,) float32 > 0, factor on each row's loss; None = 1 for all, which leaves the loss untouched.
        lr_scale: Factor on the learning rate of this round.
        rescore: (H,) int64, distinct, none of `rows`: measured by a forward pass without gradient when the round has
            been trained, unless training ends there; None = nothing.
    """

    rows: np.ndarray
    weights: np.ndarray | None = None
    lr_scale: float = 1.0
    rescore: np.ndarray | None = None

    def check(self, n: int, offered: np.ndarray | None = None) -> "Selection":
        """This selection in the types above, if it is a valid one of `n` rows.

        Row numbers of other integer types, weights of other number types and a factor of numpy's type are taken, too.

        Args:
            n: Rows of the training set.
            offered: (M,) int64, those that the round may choose among; None = all.

        Raises:
            TypeError: What must be a numpy array or a number is none.
            ValueError: Rows that repeat, lie outside [0, n), were not offered or are none; weights of another shape, or
                not above 0 and finite in float32; rows to rescore that are trained; a factor that is not above 0.
        """
        for name in ("rows", "weights", "rescore"):
            if name == "rows" or getattr(self, name) is not None:
                _check_array(name, getattr(self, name))
        rows, more = self.rows, self.rescore
        if len(rows) == 0:
            raise ValueError("Selection(rows=...) keeps 0 rows; keep at least one.")
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"Selection(rows=...) must lie in [0, {n}), got {rows.min()} to {rows.max()}.")
        rows = rows.astype(np.int64, copy=False)
        marks = marked(rows, n)
        if np.count_nonzero(marks) < len(rows):
            raise ValueError("Selection(rows=...) must be distinct, but some rows repeat.")
        if offered is not None and not marked(offered, n)[rows].all():
            raise ValueError(
                "Selection(rows=...) must be among history.offered, which in a policy with several rounds an epoch is "
                "the part of the data set that the round trains."
            )
        if more is not None:
            fits = more.min(initial=0) >= 0 and more.max(initial=0) < n
            more = more.astype(np.int64, copy=False)
            if fits:
                marks[more] = True
            if not fits or np.count_nonzero(marks) < len(rows) + len(more):
                raise ValueError(
                    f"Selection(rescore=...) must be distinct int64 rows in [0, {n}), none of them among `rows`."
                )
        weights = self.weights
        if weights is not None:
            with np.errstate(over="ignore"):  # it is told below
                weights = weights.astype(np.float32, copy=False)
            if weights.shape != rows.shape or not (np.isfinite(weights) & (weights > 0)).all():
                raise ValueError(
                    f"Selection(weights=...) must be a ({len(rows)},) array of numbers above 0 and finite in float32, "
                    f"got {len(weights)} of them, {weights.min(initial=np.inf)} to {weights.max(initial=-np.inf)}."
                )
        scale = _plain(self.lr_scale)
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise TypeError(f"Selection(lr_scale=...) must be a number, got a {type(scale).__name__}.")
        if not 0 < scale <= sys.float_info.max:
            raise ValueError(f"Selection(lr_scale=...) must be finite and above 0, got {scale}.")
        return replace(self, rows=rows, weights=weights, lr_scale=float(scale), rescore=more)


def _check_array(name: str, value: Any) -> None:
    kind, kinds = ("float32", "iuf") if name == "weights" else ("int64", "iu")
    if not issubclass(type(value), np.ndarray):
        raise TypeError(f"Selection({name}=...) must be a numpy array, got a {type(value).__name__}.")
    if value.dtype.kind not in kinds or value.ndim != 1:
        cure = " Of a mask, give np.flatnonzero(mask)." if value.dtype.kind == "b" else ""
        raise ValueError(f"Selection({name}=...) must be a (K,) {kind} array, got {value.dtype} {value.shape}.{cure}")


def _plain(value: Any) -> Any:
    """The plain number, text or switch that one of numpy's is; anything else as it is."""
    is_numpy = issubclass(type(value), np.generic | np.ndarray)
    return value.item() if is_numpy and value.ndim == 0 else value


@dataclass(frozen=True)
class Policy(abc.ABC):
    """Chooses the rows of each round. Fields are hyper-parameters, nothing else; what changes lives in the History.

    Attributes:
        needs: What the rule reads. Signals, measured in training: "loss", "correct", "confidence", "el2n", "grad_norm";
            facts, read from the data set before: "tokens" (`history.tokens`), "features" (the texts or else the pixels
            of `history.features`), "classes" (`history.features.classes`). Only these are made; a model or a data set
            that can't give one is refused.
        weighs: Whether its selections carry weights. A loss that can't be weighted row by row is refused.
        in_background: Whether `update` runs beside the next round, in a thread; then `select` sees what it wrote one
            round later.
        instead: Fields with which the rule needs another signal than without, for tasks that lack that one.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss"})
    weighs: ClassVar[bool] = False
    in_background: ClassVar[bool] = False
    instead: ClassVar[Mapping[str, Any]] = {}

    @property
    def rounds_per_epoch(self) -> int:
        """Rounds that an epoch is cut into, each offering its part of the epoch's order."""
        return 1

    def begin(self, history: History, earlier: History | None) -> None:
        """Prepare for the first round.

        Args:
            history: Of rows never seen, with the facts that the rule needs; may be written to.
            earlier: What an earlier run has learnt of the same rows, which is taken in; None = nothing.

        Raises:
            ValueError: The rule can't begin with what there is.
        """
        if earlier is not None:
            history.inherit(earlier)

    @abc.abstractmethod
    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        """The rows to train in the round that begins. Pure: the same arguments give the same answer.

        Args:
            history: What the rounds before have measured; not to be changed.
            clock: Where training stands.
            rng: The only source of chance, seeded by (seed, round).
        """

    def update(self, history: History, clock: Clock, rng: np.random.Generator) -> None:
        """Learn from the round that has ended, whose clock this is, by writing to `history.notes`."""

    def forecast(self, history: History, clock: Clock) -> int:
        """Rows that `select` will keep of the whole data set, as far as can be said beforehand; all where it can't."""
        del clock
        return len(history)

    def check_range(self, field: str, interval: str) -> None:
        """Refuse a field outside an interval such as "(0, 1]", and a fraction where it is an int; for `__post_init__`.

        Raises:
            ValueError: Names the field, the interval and the value.
        """
        value = self._plain_field(field)
        low, high = (float(end) for end in interval[1:-1].split(","))
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (low <= value if interval[0] == "[" else low < value)
            or not (value <= high if interval[-1] == "]" else value < high)
        ):
            raise ValueError(f"{type(self).__name__}({field}=...) must be in {interval}, got {value!r}.")
        if self.__dataclass_fields__[field].type in (int, "int") and not isinstance(value, int):
            raise ValueError(f"{type(self).__name__}({field}=...) must be a whole number, got {value!r}.")

    def check_switch(self, field: str) -> None:
        """Refuse a field that is neither True nor False; for `__post_init__`.

        Raises:
            ValueError: Names the field and the value.
        """
        value = self._plain_field(field)
        if not isinstance(value, bool):
            raise ValueError(f"{type(self).__name__}({field}=...) must be True or False, got {value!r}.")

    def _plain_field(self, field: str) -> Any:
        """The value of a field, which is made a plain one: that reads the same in files and messages."""
        object.__setattr__(self, field, _plain(getattr(self, field)))
        return getattr(self, field)


@dataclass(frozen=True)
class BudgetPolicy(Policy):
    """A policy whose user sets the share of the data that each round trains on.

    Args:
        keep: Share of the data to train on in each round, in (0, 1].
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
    """

    keep: float = 0.7
    unit: Literal["rows", "tokens"] = "rows"

    def __post_init__(self):
        self.check_range("keep", "(0, 1]")
        if self.unit not in ("rows", "tokens"):
            raise ValueError(f"{type(self).__name__}(unit=...) must be 'rows' or 'tokens', got {self.unit!r}.")

    def within_budget(self, order: np.ndarray, history: History, clock: Clock) -> np.ndarray:
        """The shortest prefix of `order` that reaches the budget, rounded up to whole optimizer steps.

        Args:
            order: (N,) int64, all rows, the ones to keep first.
            history: Gives the token counts.
            clock: Gives the rows in an optimizer step.

        Returns:
            (K,) int64.
        """
        if self.keep == 1:
            return order
        if self.unit == "rows":
            k = self._rows_in_budget(len(order))
        else:
            reached = np.cumsum(history.tokens[order], dtype=np.int64)
            k = int(np.searchsorted(reached, self.keep * float(reached[-1]) - 1e-9)) + 1
        return order[: whole_steps(k, clock.step_rows)]

    def best(self, score: np.ndarray, history: History, clock: Clock, rng: np.random.Generator) -> np.ndarray:
        """The rows of highest score within the budget: never seen (NaN) first, set aside last, equal scores at random.

        Args:
            score: (N,) float.
            history: Gives the token counts.
            clock: Gives the rows in an optimizer step.
            rng: Splits equal scores, and draws what is set aside.

        Returns:
            (K,) int64, sorted.
        """
        aside = history.set_aside(rng)
        if aside.any():
            score = np.where(aside, -np.inf, score)
        if self.unit == "tokens":
            return np.sort(self.within_budget(ranked(score, rng), history, clock))
        return top(score, whole_steps(self._rows_in_budget(len(history)), clock.step_rows), rng)

    def forecast(self, history: History, clock: Clock) -> int:
        return min(len(history), whole_steps(self._rows_in_budget(len(history)), clock.step_rows))

    def _rows_in_budget(self, n: int) -> int:
        return math.ceil(self.keep * n - 1e-9)


def rounds_of(policy: Policy) -> int:
    """Rounds that the policy cuts an epoch into, as a plain number.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    rounds = _plain(policy.rounds_per_epoch)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        name = type(policy).__name__
        raise ValueError(f"{name}.rounds_per_epoch must be a whole number of at least 1, got {rounds!r}.")
    return rounds


def whole_steps(rows: int, step_rows: int) -> int:
    """`rows`, rounded up to whole optimizer steps of `step_rows` rows."""
    return math.ceil(rows / step_rows) * step_rows
