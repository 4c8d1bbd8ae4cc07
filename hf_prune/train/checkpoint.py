"""The pruning state inside a Trainer checkpoint, and the search for a checkpoint that is whole."""

import math
import os
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..common import storage
from ..common.foreign import MOST, number, of_kind, read_json, setting, why
from ..common.privacy import hide
from ..core import Clock, Selection
from ..measure.recorder import Measurements
from ..records.history import History
from ..records.history_file import STATE, TRAINER_STATE
from ..report.entries import add_round
from . import seal
from .rounds import Round
from .schedule import Place, RoundPlan

_ACCOUNT = ("rows", "steps", "padded_tokens", "seconds_selecting", "seconds_training", "seconds_rescoring")
_PLAIN = ("span", "steps_before", "seconds_selecting", "seconds_training", "stopped")  # fields of `Round`


@dataclass(frozen=True)
class Setup:
    """The settings of a run. On resume, they are compared with the settings in the checkpoint.

    Attributes:
        policy: `repr` of the policy, without secrets.
        data: Fingerprint of the training set; None = it has none.
        batch: Rows that all processes together train at a time.
        accumulation: Batches in an optimizer step.
        order: Kind of the sampler; None in a checkpoint from before kinds had names.
        key: Column of the training set that names its rows; None = there is none.
    """

    policy: str
    data: int | None
    batch: int
    accumulation: int
    order: str | None
    key: str | None = None

    @property
    def step_rows(self) -> int:
        """Rows in an optimizer step."""
        return self.batch * self.accumulation


@dataclass
class PruningState:
    """Everything that a pruned run needs to resume.

    Attributes:
        history: What is known about every row.
        seed: Seed of the order and of every selection.
        setup: The settings of the run.
        epochs: One account per epoch that has ended, see `report/account.py`.
        seconds_evaluating: Seconds spent in evaluation so far.
        round: The round in progress; None between rounds.
        more: Further values of a checkpoint: `by_batch` and `scale` (of the object that measures the batches), `run`
            (the name of the run) and, if `policy.update` failed, `untaught` (the clock of the round it was called for).
    """

    history: History
    seed: int
    setup: Setup
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds_evaluating: float = 0.0
    round: Round | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def next_epoch(self) -> int:
        """Number of the epoch after the last account. The first epochs may have none: a policy may start later."""
        return self.epochs[-1]["epoch"] + 1 if self.epochs else 0

    @property
    def current(self) -> Round:
        """The round in progress. Callers use it only while there is one."""
        assert self.round is not None
        return self.round

    def add(self, epoch: int, account: dict[str, float]) -> None:
        """Add the cost of a round. The rounds of an epoch share one account.

        Args:
            epoch: Number of the epoch, from 0.
            account: Numbers by name; each is added to the epoch's account.
        """
        add_round(self.epochs, epoch, account)

    def save(self, folder: str | os.PathLike, measured: Measurements, step: int) -> None:
        """Write the state.

        Args:
            folder: The checkpoint.
            measured: Measurements of the round in progress; ignored between rounds.
            step: Optimizer steps done.
        """
        arrays = self.history.arrays()
        header = {name: getattr(self, name) for name in ("seed", "epochs", "seconds_evaluating")}
        header |= {"facts": asdict(self.setup) | self.more, "step": step, "round": None}
        if self.round is not None:
            selection = self.round.selection
            arrays |= {f"measured/{name}": getattr(measured, name) for name in ("rows", "tokens", "values")}
            for name in ("rows", "weights", "rescore"):
                if getattr(selection, name) is not None:
                    arrays[f"selection/{name}"] = getattr(selection, name)
            if self.round.rest is not None:
                arrays["rest"] = self.round.rest
            header["round"] = {
                "clock": asdict(self.round.clock),
                "plan": asdict(self.round.plan),
                "lr_scale": selection.lr_scale,
                **{name: getattr(self.round, name) for name in _PLAIN},
                "padded_tokens": measured.padded_tokens,
            }
        storage.save(Path(folder, STATE), arrays, header)

    @classmethod
    def load(cls, folder: str | os.PathLike, rows: int) -> tuple["PruningState", Measurements | None]:
        """Read what `save` wrote.

        Args:
            folder: The checkpoint.
            rows: Rows of the present training set.

        Returns:
            The state, and the measurements of the round in progress (None between rounds).

        Raises:
            ValueError: The file is damaged (the message names a whole checkpoint beside it), belongs to other data, or
                has another format.
        """
        try:
            arrays, header = storage.load(Path(folder, STATE))
        except storage.OtherFormat as error:
            raise ValueError(f"resume_from_checkpoint={str(folder)!r}: {error}") from error
        except storage.DamagedFile as error:
            raise ValueError(f"resume_from_checkpoint={str(folder)!r}: {error} {_cure(folder)}") from error
        if not {"seed", "facts", "epochs", "round"} <= set(header):
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r}: its {STATE} is no pruning state. {_cure(folder)}"
            )
        try:
            history = History.from_arrays(arrays, rows)
        except ValueError as error:
            raise ValueError(f"resume_from_checkpoint={str(folder)!r}: {error}") from error
        try:
            state, measured = cls._of(history, arrays, header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r}: its {STATE} is no pruning state ({why(error)}). "
                f"{_cure(folder)}"
            ) from error
        if measured is not None and header["round"].get("skipped"):  # an earlier hf_prune let a policy begin there
            raise ValueError(
                f"resume_from_checkpoint={str(folder)!r}: its epoch was begun without a policy. Resume from the end of "
                "an epoch."
            )
        return state, measured

    @classmethod
    def _of(
        cls, history: History, arrays: dict[str, np.ndarray], header: dict[str, Any]
    ) -> tuple["PruningState", Measurements | None]:
        """Build the state from the arrays and the header of a file, and check that they fit each other."""
        number(header["seed"], "the seed", -(1 << 63), 1 << 64, whole=True)
        number(header["seconds_evaluating"], "seconds_evaluating")
        facts = of_kind(header["facts"], "facts", dict)
        facts["policy"] = hide(setting(facts["policy"], "the policy"))
        if "order" in facts:
            setting(facts["order"], "the order")
        of_kind(facts["data"], "the fingerprint", int, type(None))
        for name in ("batch", "accumulation"):
            number(facts[name], name, 1, whole=True)
        for epoch in of_kind(header["epochs"], "epochs", list):
            for name in ("epoch", *_ACCOUNT):
                number(epoch[name], name, -MOST, whole=name == "epoch")
        of_kind(facts.get("extras", []), "extras", list)
        setup = Setup(**{name: facts.pop(name, None) for name in Setup.__dataclass_fields__})
        state = cls(history, header["seed"], setup, header["epochs"], header["seconds_evaluating"], more=facts)
        if header["round"] is None:
            return state, None
        state.round, measured = _begun(header["round"], arrays, len(history))
        return state, measured


def _begun(begun: dict[str, Any], arrays: dict[str, np.ndarray], n: int) -> tuple[Round, Measurements]:
    """Build the round in progress and its measurements, and check that they fit a training set of `n` rows."""
    clock, plan = begun["clock"], RoundPlan(Place(*begun["plan"].pop("at")), **begun["plan"])
    for name, value in (*zip(Place._fields, plan.at, strict=True), ("round", clock["round"])):
        number(value, name, name == "parts", whole=True)
    number(plan.at.part, "the part", 0, plan.at.parts - 1, whole=True)
    for name in ("first_step", "updates", "steps", "end"):
        number(getattr(plan, name), name, whole=True)
    chosen = {name: arrays.get(f"selection/{name}") for name in ("weights", "rescore")}
    selection = Selection(arrays["selection/rows"], lr_scale=begun["lr_scale"], **chosen).check(n)
    rows, tokens, values = (arrays[f"measured/{name}"] for name in ("rows", "tokens", "values"))
    if tokens.shape != rows.shape or (len(values) and values.shape[1:] != rows.shape):
        raise ValueError(f"it has {tokens.shape} tokens and {values.shape} values of {rows.shape} visits")
    rest = arrays.get("rest")
    for some in (rows, rows if rest is None else rest):
        if some.dtype != np.int64 or some.ndim != 1 or some.min(initial=0) < 0 or some.max(initial=0) >= n:
            raise ValueError(f"it is of rows that lie outside [0, {n})")
    measured = Measurements(rows, tokens, values, number(begun["padded_tokens"], "padded_tokens", whole=True))
    return Round(Clock(**clock), plan, selection, rest=rest, **{name: begun[name] for name in _PLAIN}), measured


def choose(asked: Any, run: str | os.PathLike, warn: Callable[[str], None]) -> tuple[str | None, str | None]:
    """Find the checkpoint to resume from.

    Args:
        asked: The folder of a checkpoint, or True for the newest whole checkpoint of the run.
        run: The `output_dir` of the run.
        warn: See `last_whole`.

    Returns:
        The folder and None, or None and the reason why there is no such checkpoint. If the run has no checkpoint, the
        reason begins with Trainer's own message for that case.
    """
    if asked is not True:
        # a checkpoint without a pruning state is accepted: the policy starts anew, with a warning
        why = _flaw(Path(asked), spared=(STATE,)) if os.path.isdir(asked) else None
        if why is None:
            return str(asked), None
        return None, f"resume_from_checkpoint={str(asked)!r}: {why.rstrip('.')}. {_cure(asked)}{_way_out(asked)}"
    if (found := last_whole(run, warn)) is not None:
        return found, None
    none, cure = f"No valid checkpoint found in output directory ({run})", "Train without it, from the start."
    return None, f"{none}: none of those there is whole. {cure}" if _newest_first(run) else none


def last_whole(run: str | os.PathLike, warn: Callable[[str], None]) -> str | None:
    """Return the newest whole checkpoint in the folder of a run; None = there is none.

    Args:
        run: The `output_dir` of a run.
        warn: Called for each newer checkpoint that is not whole, with the reason.
    """
    flaws = {}
    for folder in _newest_first(run):
        flaw = _flaw(folder)
        if flaw is None:
            break
        flaws[folder] = flaw
    else:
        folder = None
    for passed, flaw in flaws.items():
        goes_on = f"going on from {folder}" if folder else "no whole checkpoint is left"
        warn(f"{passed} is incomplete or damaged ({flaw}); {goes_on}.")
    return folder and str(folder)


def without_state(folder: str | os.PathLike) -> str:
    """Return the warning for a run that resumes from a checkpoint without a pruning state."""
    message = (
        f"{folder} holds no {STATE} (it was saved without a policy or with save_only_model): the policy begins anew "
        "and knows nothing of the rows."
    )
    others = (path for path in _nearest(folder) if Path(path, STATE).exists() and _flaw(path) is None)
    other = next(others, None)
    return f"{message} {other} beside it holds one: resume from there to keep what was learnt." if other else message


def _flaw(folder: Path, spared: Collection[str] = ()) -> str | None:
    """Return the reason why a checkpoint can't be resumed from; None = we found nothing wrong with it.

    Args:
        folder: The checkpoint.
        spared: Names of files that may be missing.
    """
    try:
        step = read_json(Path(folder, TRAINER_STATE), largest=MOST).get("global_step", 0)
    except FileNotFoundError:
        return f"{TRAINER_STATE} is missing: the run may have been killed while saving"
    except (OSError, ValueError, AttributeError) as error:
        return f"{TRAINER_STATE}: {error}"
    path = Path(folder, STATE)
    try:
        first, last = _steps(storage.load(path)[1]) if path.exists() else (step, step)
        if not first <= step <= last:
            return f"{path} is of another step than {TRAINER_STATE}, which is of step {step}"
    except storage.OtherFormat:
        return None  # not damaged; loading it raises an error that names the version to use
    except (OSError, ValueError, TypeError) as error:
        return str(error)
    return seal.flaw(folder, spared)


def _steps(header: dict[str, Any]) -> tuple[float, float]:
    """Return the first and the last optimizer step at which this state can have been saved."""
    if "step" in header:
        return header["step"], header["step"]
    if plan := (header.get("round") or {}).get("plan"):  # earlier versions of hf_prune did not write "step"
        return plan["first_step"], plan["first_step"] + plan["steps"]
    return 0, math.inf


def _newest_first(run: str | os.PathLike) -> list[Path]:
    named = ((path, re.fullmatch(r"checkpoint-(\d+)", path.name)) for path in Path(run).glob("checkpoint-*"))
    steps = {path: int(found[1]) for path, found in named if found is not None}
    return sorted(steps, key=lambda path: -steps[path])


def _nearest(folder: str | os.PathLike) -> list[Path]:
    """Return the other checkpoints of a run: the older ones, newest first; then the newer ones, oldest first."""
    folders = _newest_first(Path(folder).parent)
    at = folders.index(Path(folder)) if Path(folder) in folders else -1
    return folders[at + 1 :] + folders[: max(at, 0)][::-1]


def _cure(folder: str | os.PathLike) -> str:
    whole = next((path for path in _nearest(folder) if _flaw(path) is None), None)
    return f"Resume from {whole} instead." if whole else "There is no other whole checkpoint beside it: start again."


def _way_out(folder: str | os.PathLike) -> str:
    """Return a hint for users who changed a checkpoint on purpose."""
    sealed = Path(folder, seal.SEAL)
    return f" (Was it changed on purpose? Remove {sealed}.)" if sealed.exists() else ""
