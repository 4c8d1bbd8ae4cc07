"""Trim, by hand: the schedule of Co-teaching on recent losses, and the share of a second component."""

import numpy as np
import pytest

from hf_prune import Clock, History
from hf_prune.core.features import Features
from hf_prune.policies import make, trim
from hf_prune.policies.trim import Trim, upper_share


def at(round, share, step_rows=1):
    return Clock(round, round, 10, share, step_rows)


def measure(policy, history, round, losses, share=0.0, correct=None):
    losses = np.asarray(losses, np.float32)
    rows = np.flatnonzero(~np.isnan(losses))
    correct = np.zeros(len(losses)) if correct is None else np.asarray(correct)
    signals = {"correct": correct[rows].astype(np.float32)} if "correct" in history.signals else {}
    history.record(rows, losses[rows], round, **signals)
    policy.update(history, at(round, share), np.random.default_rng(0))


def kept(policy, history, round, share, step_rows=1):
    return policy.select(history, at(round, share, step_rows), np.random.default_rng(0)).rows.tolist()


def test_the_pruned_share_grows_along_the_ramp():
    """noise 0.4 of 10 rows, ramp 0.4: at shares 0, 0.1, 0.2, 0.4 and 0.9 of training, 0, 1, 2, 4 and 4 are pruned."""
    policy, history = Trim(noise=0.4, ramp=0.4, revisit=0), History.empty(10)
    measure(policy, history, 0, np.arange(10) / 10)
    for share, pruned in ((0.0, 0), (0.1, 1), (0.2, 2), (0.4, 4), (0.9, 4)):
        assert kept(policy, history, 1, share) == list(range(10 - pruned))
        assert policy.forecast(history, at(1, share)) == 10 - pruned


def test_recent_visits_count_more_than_early_ones():
    """Row 0: 4, 0, 0, so 4, 2, 1. Row 1: 0, 3, 3, so 0, 1.5, 2.25. Row 2: 1, always. The plain means: 1.33, 2, 1."""
    policy, history = Trim(noise=0.4, revisit=0), History.empty(3)
    measure(policy, history, 0, [4, 0, 1])
    assert kept(policy, history, 1, 0.5) == [1, 2]
    measure(policy, history, 1, [0, 3, 1])
    assert history.notes["recent"].tolist() == [2, 1.5, 1] and kept(policy, history, 2, 0.05) == [0, 1, 2]
    history.notes["back"][:] = 1  # so that all are visited
    measure(policy, history, 2, [0, 3, 1], share=0.5)
    history.notes["back"][:] = 0
    assert history.notes["recent"].tolist() == [1, 2.25, 1] and kept(policy, history, 3, 0.5) == [0, 2]


def test_forecasts_of_later_rounds_are_cheap(monkeypatch, rng):
    """The share is estimated when a round ends; a run asks for a forecast of each of its rounds."""
    policy, history = Trim(revisit=0), History.empty(1000)
    for round in range(2):
        measure(policy, history, round, np.exp(rng.normal(-1, 0.5, 1000) + 2.3 * (np.arange(1000) < 200)))
    monkeypatch.setattr(trim, "upper_share", pytest.fail)
    counts = [policy.forecast(history, at(round, round / 10)) for round in range(1, 10)]
    assert len(set(counts)) == 1 and 780 <= counts[0] <= 820  # no ramp: two rounds have found it


def test_a_pruned_row_that_is_predicted_as_labelled_comes_back_for_good():
    policy, history = Trim(noise=0.5, ramp=0.1), History.empty(4, ("correct",))
    measure(policy, history, 0, [1, 2, 3, 4])
    assert kept(policy, history, 1, 0.5) == [0, 1]
    selection = policy.select(history, at(3, 0.5), np.random.default_rng(0))
    assert selection.rescore.tolist() == [2, 3]  # rounds 0, 3, 6 ...
    assert policy.select(history, at(4, 0.5), np.random.default_rng(0)).rescore is None
    measure(policy, history, 3, [1, 1, 0.5, 5], share=0.5, correct=[1, 1, 1, 0])
    assert history.notes["recent"].tolist() == [1, 1.5, 3, 4]  # a revisit is no visit
    assert kept(policy, history, 4, 0.5) == [0, 1, 2]
    measure(policy, history, 4, [1, 1, 0.5, np.nan], share=0.5)
    assert kept(policy, history, 5, 0.9) == [0, 1, 2]


def test_each_class_is_pruned_alike():
    policy, history = Trim(noise=0.5, ramp=0.1, per_class=True, revisit=0), History.empty(6)
    history.features = Features((), classes=np.array([0, 0, 0, 0, 1, 1]))
    measure(policy, history, 0, [5, 6, 7, 8, 1, 2])
    assert kept(policy, history, 1, 0.5) == [0, 1, 4]
    assert kept(Trim(noise=0.5, ramp=0.1, revisit=0), history, 1, 0.5) == [0, 4, 5]


def test_whole_steps_are_filled_and_rows_never_seen_stay():
    policy, history = Trim(noise=0.5, ramp=0.1, revisit=0), History.empty(6)
    measure(policy, history, 0, [5, 6, np.nan, 8, 1, 2])
    assert kept(policy, history, 1, 0.5) == [2, 4, 5]
    assert kept(policy, history, 1, 0.5, step_rows=2) == [0, 2, 4, 5]


@pytest.mark.parametrize("wrong", [0.1, 0.2, 0.4])
def test_a_second_component_is_counted(wrong, rng):
    """Right labels: log-normal around 0.4 nats; wrong ones around 3.5, as a model has them that memorises late."""
    n = 4000
    losses = np.exp(rng.normal(np.log(0.4), 0.6, n))
    noisy = rng.random(n) < wrong
    losses[noisy] = np.exp(rng.normal(np.log(3.5), 0.35, noisy.sum()))
    assert upper_share(losses) == pytest.approx(wrong, abs=0.03)
    assert upper_share(losses[rng.permutation(n)]) == pytest.approx(upper_share(losses), abs=1e-9)


@pytest.mark.parametrize("n", [100, 1000, 20_000])
@pytest.mark.parametrize("shape", ["exponential", "lognormal", "gamma", "normal", "equal", "few"])
def test_one_component_is_left_alone(n, shape, rng):
    losses = {
        "exponential": rng.exponential(1, n),
        "lognormal": rng.lognormal(0, 1, n),
        "gamma": rng.gamma(0.5, 1, n),
        "normal": np.abs(rng.normal(2, 0.5, n)),
        "equal": np.ones(n),
        "few": np.array([0.1] * 9 + [5.0] * 90),
    }[shape]
    assert upper_share(losses) == 0


def test_without_a_share_it_prunes_what_the_losses_say(rng):
    n = 1000
    losses = np.exp(rng.normal(-1, 0.5, n))
    losses[:200] = np.exp(rng.normal(1.3, 0.3, 200))
    policy, history = Trim(revisit=0), History.empty(n)
    measure(policy, history, 0, losses)
    assert len(kept(policy, history, 1, 0.3)) == n  # one round may err
    measure(policy, history, 1, losses)
    rows = kept(policy, history, 2, 0.3)
    assert 780 <= len(rows) <= 820 and np.mean(np.array(rows) < 200) < 0.03
    clean = History.empty(n)
    for round in range(3):
        measure(policy, clean, round, np.exp(rng.normal(-1, 0.7, n)))
    assert len(kept(policy, clean, 3, 0.9)) == n


def test_the_largest_share_that_two_rounds_have_found_is_held(monkeypatch):
    """Estimates 0.3, 0, 0.2, 0.4, 0.1, 0.1: of neighbours, the smaller ones are 0, 0, 0.2, 0.1, 0.1."""
    policy, history, found = Trim(revisit=0), History.empty(10), iter([0.3, 0.0, 0.2, 0.4, 0.1, 0.1])
    monkeypatch.setattr(trim, "upper_share", lambda losses: next(found))
    held = []
    for round in range(6):
        measure(policy, history, round, np.arange(10.0))
        held.append(float(history.notes["noise"][0]))
    assert held == [0, 0, 0, 0.2, 0.2, 0.2] and kept(policy, history, 6, 0.9) == list(range(8))


def test_most_rows_are_not_wrong(rng):
    """A model that has learnt one frequent class alone shows two components; 70 % of the rows are in the upper one."""
    for share, found in ((0.5, 0.5), (0.7, 0)):
        losses = np.exp(rng.normal(-2, 0.4, 2000))
        losses[: int(share * 2000)] = np.exp(rng.normal(1, 0.3, int(share * 2000)))
        assert upper_share(losses) == pytest.approx(found, abs=0.02)


def test_a_run_that_an_earlier_version_began_measures_its_rows_anew():
    """That version kept the sum of the losses and the number of visits."""
    policy, history = Trim(ramp=0.1, revisit=0), History.empty(4)
    history.notes |= {"total": np.float32([1, 2, 3, 9]), "visits": np.int32([3, 3, 3, 3])}
    history.notes |= {"back": np.zeros(4, np.uint8), "noise": np.array([0.25]), "estimate": np.array([0.25])}
    assert kept(policy, history, 3, 0.5) == [0, 1, 2, 3] and policy.forecast(history, at(3, 0.5)) == 4
    measure(policy, history, 3, [1, 5, 1, 1], share=0.5)
    assert kept(policy, history, 4, 0.5) == [0, 2, 3]


def test_noise_may_be_called_auto():
    assert make("trim:noise=auto") == Trim() == Trim(noise="auto")


@pytest.mark.parametrize(("field", "value"), [("noise", 1), ("ramp", 0), ("revisit", -1), ("per_class", 2)])
def test_fields_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"Trim\({field}=...\) must be .* got {value!r}"):
        Trim(**{field: value})
