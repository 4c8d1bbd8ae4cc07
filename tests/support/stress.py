"""Kills training at random moments, goes on, and compares the end with that of a run that nobody killed, bit for bit.

    python tests/support/stress.py --kills 100 --seed 0 --output tests/results/stress.json

Cases are drawn: policy, processes (1, 2, 4; on gloo), accumulation, order, steps between saves. A case is killed a few
times in a row, each time at a moment that is drawn, too: inside a step, a save or a change of rounds, after so many
function calls; one process or all of them by SIGKILL. Each kill prints a line. Ends with 1 where a bit differs.
"""

import argparse
import collections
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import inside
import ranks
from resumed import assert_same, build, result_of

from hf_prune.report.account import surroundings

POLICIES = (
    "uniform:keep=0.6",
    "infobatch:ratio=0.6",
    "ucb:keep=0.6",
    "epsilon_greedy:keep=0.6",
    "stale_sb",
    "self_paced",
    "seta",
    "loss_trend",
    "kakurenbo:hide=0.6,threshold=0.0,by_confidence=True",
    "ies",
    "autoassist:rounds=3",
)
PLACES = ("step", "save", "round")
KILLS_IN_A_ROW = 5
SOON = 6  # steps, saves or changes of rounds


@dataclass(frozen=True)
class Moment:
    """When a process kills itself.

    Args:
        rank: Which.
        place: Inside a "step", a "save", or a "round" that opens or closes.
        visit: At which of them, from 0, counted from where the run began or went on.
        calls: After so many function calls in it.
        kills_all: Whether the other processes are killed with it.
    """

    rank: int
    place: str
    visit: int
    calls: int
    kills_all: bool


class Profile:
    """Counts the function calls in each visit of each place, and kills the process at its moment."""

    def __init__(self, moment: Moment | None):
        self.moment = moment
        self.calls: dict[str, list[int]] = {place: [] for place in PLACES}

    def inside(self, place, act):
        """`act`, watched."""

        def watched(*args, **kwargs):
            visit, count, moment = len(self.calls[place]), 0, self.moment
            last = None if moment is None or (moment.place, moment.visit) != (place, visit) else moment.calls

            def on_call(frame, event, argument):
                nonlocal count
                count += event in ("call", "c_call")
                if count == last:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.setprofile(on_call)
            try:
                return act(*args, **kwargs)
            finally:
                sys.setprofile(None)
                self.calls[place].append(count)

        return watched


def train(rank, folder, settings, moment):
    """In each process: train, or go on as the same command would, and leave the result in a file."""
    profile = Profile(moment if moment is not None and moment.rank == rank else None)
    trainer, log = build(folder, **settings)
    trainer.training_step = profile.inside("step", trainer.training_step)
    trainer._save_checkpoint = profile.inside("save", trainer._save_checkpoint)
    begin = trainer._init_training_state

    def begun(*args, **kwargs):
        answer = begin(*args, **kwargs)
        engine = inside.engine(trainer)
        for name in ("open_round", "close_round"):
            setattr(engine, name, profile.inside("round", getattr(engine, name)))
        return answer

    trainer._init_training_state = begun
    any_checkpoint = any(Path(folder).glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=True if any_checkpoint else None)
    Path(folder, f"result{rank}").write_bytes(pickle.dumps((result_of(trainer, log), profile.calls)))


def draw_case(chance: random.Random) -> tuple[int, dict]:
    processes = chance.choice((1, 2, 2, 4))
    return processes, {
        "policy": chance.choice(POLICIES),
        "accumulation": chance.choice((1, 3)),
        "order": chance.choice(("random", "group_by_length")),
        "save_steps": chance.choice((1, 2, 3)),
        "rows": chance.choice((17, 24, 31)) * (1 if processes == 1 else 2),
        "num_train_epochs": 3,
    }


def draw_moment(chance: random.Random, calls: list[dict[str, list[int]]]) -> Moment:
    """A moment not long after a run has begun or gone on; it may come to its end before, and is not killed then."""
    rank, place = chance.randrange(len(calls)), chance.choice(PLACES)
    visit = chance.randrange(min(SOON, len(calls[rank][place])))
    return Moment(rank, place, visit, chance.randint(1, max(1, calls[rank][place][visit])), chance.random() < 0.5)


def results(folder: Path, processes: int) -> list[tuple]:
    return [pickle.loads((folder / f"result{rank}").read_bytes()) for rank in range(processes)]


def compare(found: list[tuple], expected: list[tuple]) -> None:
    for (result, _), (reference, _) in zip(found, expected, strict=True):
        assert_same(dict(result), reference)


def torture(folder: Path, processes: int, settings: dict, chance: random.Random, on_kill) -> None:
    """One case: killed several times in a row, then left alone.

    Raises:
        AssertionError: The end is another one, or the run could not go on.
    """
    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        path.mkdir(parents=True)
    assert ranks.run(train, whole, settings, None, processes=processes, folder=whole)
    reference = results(whole, processes)
    for _ in range(KILLS_IN_A_ROW):
        moment = draw_moment(chance, [calls for _, calls in reference])
        if ranks.run(train, killed, settings, moment, processes=processes, folder=killed, kills_all=moment.kills_all):
            break  # it came to its end first
        on_kill(moment, sorted(int(path.name.split("-")[1]) for path in killed.glob("checkpoint-*")))
    else:
        assert ranks.run(train, killed, settings, None, processes=processes, folder=killed)
    compare(results(killed, processes), reference)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the cases and moments")
    parser.add_argument("--output", type=Path, default=Path("stress-output/stress.json"), help="the summary")
    chosen = parser.parse_args()
    chance, kills, cases, differences = random.Random(chosen.seed), [], [], []
    start = time.perf_counter()
    while len(kills) < chosen.kills:
        processes, settings = draw_case(chance)
        case = {"processes": processes} | settings

        def on_kill(moment, checkpoints, case=case):
            kills.append({"case": case, "moment": asdict(moment)})
            print(f"kill {len(kills)}: {case} {moment} checkpoints {checkpoints}", flush=True)

        folder = Path(tempfile.mkdtemp())
        try:
            torture(folder, processes, settings, chance, on_kill)
        except AssertionError as error:
            differences.append({"case": case, "error": str(error)[-2000:], "folder": str(folder)})
            print(f"DIFFERENT: {case}: {error}; left in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
        cases.append(case)

    def count(key):
        return dict(sorted(collections.Counter(str(key(kill)) for kill in kills).items()))

    summary = {
        "kills": len(kills),
        "cases": len(cases),
        "differences": differences,
        "seconds": round(time.perf_counter() - start),
        "seed": chosen.seed,
        "by_policy": count(lambda kill: kill["case"]["policy"]),
        "by_processes": count(lambda kill: kill["case"]["processes"]),
        "by_accumulation": count(lambda kill: kill["case"]["accumulation"]),
        "by_order": count(lambda kill: kill["case"]["order"]),
        "by_place": count(lambda kill: kill["moment"]["place"]),
        "by_scope": count(lambda kill: "all" if kill["moment"]["kills_all"] else "one"),
    } | surroundings(__file__)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print({name: value for name, value in summary.items() if name.startswith(("by_", "kills", "cases"))})
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
