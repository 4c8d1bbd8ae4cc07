"""Rules that leave nothing out: told once, when the first rounds show it, and in the report; baselines are not."""

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
from tiny import TASKS, trainer

from hf_prune import Policy, Selection
from hf_prune.policies import make
from hf_prune.report.account import keeps_all
from hf_prune.train.idle import rounds_to_act

TASK = TASKS["one label"]
ROWS = 20


@dataclass(frozen=True)
class Lazy(Policy):
    """Does something from a round on."""

    weighs = True

    since: int = 99
    what: dict = field(default_factory=dict)

    def select(self, history, clock, rng):
        rows = np.arange(len(history))
        return Selection(rows[1:]) if clock.round >= self.since else Selection(rows, **self.what)


def warned(caplog, folder, policy, rows=ROWS, **settings):
    """What is said of a run that does nothing, and the trainer."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "hf_prune"):
        ours = trainer(folder, TASK.model(), TASK.rows(rows), policy, **{"num_train_epochs": 6} | settings)
        ours.train(resume_from_checkpoint=settings.get("resume_from_checkpoint"))
    said = [record.getMessage() for record in caplog.records]
    return [message for message in said if "no row out" in message or "nothing out" in message], ours


def test_a_rule_that_does_nothing_says_so_after_its_first_rounds_once(caplog, tmp_path):
    said, ours = warned(caplog, tmp_path, "kakurenbo:threshold=1.0")
    assert len(said) == 1
    assert said[0].startswith(
        "policy=Kakurenbo(hide=0.3, threshold=1.0, by_confidence=False) has left no row out in 3 "
    )
    report = ours.pruning_report()
    assert report.idle().startswith(
        "`Kakurenbo(hide=0.3, threshold=1.0, by_confidence=False)` left no row out: as many"
    )
    assert report.idle() in report.card()
    report.html(tmp_path / "page.html")
    assert report.idle().replace("`", "") in (tmp_path / "page.html").read_text()  # a page has no Markdown


@pytest.mark.parametrize(
    ("policy", "rounds"),
    [("loss_trend:threshold=1e-6", 8), ("loss_trend:threshold=1e-6,window=2,warmup=1", 7), ("ies:threshold=1e-9", 7)],
)
def test_a_rule_that_waits_is_given_the_rounds_it_waits_for(caplog, tmp_path, policy, rounds):
    assert rounds_to_act(make(policy)) == rounds
    said, _ = warned(caplog, tmp_path, policy, num_train_epochs=rounds + 1)
    assert len(said) == 1 and f"has left no row out in {rounds} rounds" in said[0]


def test_a_short_run_says_so_at_its_end(caplog, tmp_path):
    said, _ = warned(caplog, tmp_path, Lazy(), num_train_epochs=2)
    assert len(said) == 1 and "has left no row out in 2 rounds" in said[0]


@pytest.mark.parametrize(
    "policy",
    [
        *("uniform:keep=1", "infobatch:ratio=0", "kakurenbo:hide=0", "uniform:keep=0.5", "self_paced", None),
        Lazy(since=2),
        Lazy(what={"weights": np.full(ROWS, 2, np.float32)}),
        Lazy(what={"lr_scale": 2.0}),
    ],
)
def test_what_acts_or_is_a_baseline_is_not_told_of(caplog, tmp_path, policy):
    said, ours = warned(caplog, tmp_path, policy)
    assert said == []
    if policy is not None and isinstance(policy, str):
        assert ours.pruning_report().idle() is None


def test_a_budget_that_is_rounded_up_to_all_rows_is_told_before(caplog, tmp_path):
    said, ours = warned(caplog, tmp_path, "uniform:keep=0.9", rows=10)
    assert len(said) == 1
    assert "leaves nothing out: 0.9 of 10 rows, in whole optimizer steps of 4, is all of them." in said[0]
    assert "left no row out" in ours.pruning_report().idle()
    assert warned(caplog, tmp_path, "uniform:keep=0.8", rows=10)[0] == []


def test_one_warning_is_enough_where_it_was_known_before(caplog, tmp_path):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "hf_prune"):
        trainer(tmp_path, TASK.model(), TASK.rows(ROWS), "infobatch", num_train_epochs=1).train()
    said = [record.getMessage() for record in caplog.records]
    assert ["leaves none to prune in" in message for message in said if "were padding" not in message] == [True]


def test_a_resumed_run_knows_what_was_left_out_before(caplog, tmp_path):
    policy = Lazy(since=1)
    warned(caplog, tmp_path, policy, num_train_epochs=3, save_strategy="epoch")
    steps = ROWS // 4
    for step in (2 * steps, 3 * steps):
        again = {"save_strategy": "epoch", "resume_from_checkpoint": str(tmp_path / f"checkpoint-{step}")}
        assert warned(caplog, tmp_path, policy, num_train_epochs=6, **again)[0] == []


def test_baselines_are_known_by_their_settings():
    for policy in ("uniform:keep=1", "uniform:unit=rows,keep=1.0", "Uniform(keep=1.0, unit='rows')", "seta:ratio=0"):
        assert keeps_all(policy), policy
    for policy in ("uniform:keep=0.1", "uniform:keep=1.0e-1", "Uniform(keep=0.01)", "infobatch:ratio=0.5", "x:keep=10"):
        assert not keeps_all(policy), policy
