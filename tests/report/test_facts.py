"""Facts about rows, from traces that are written by hand."""

import numpy as np
import pytest
from datasets import Dataset
from traces import write

from hf_prune import History
from hf_prune.policies.trim import upper_share
from hf_prune.records.dynamics import Dynamics
from hf_prune.report.facts import data_facts, row_facts


def dynamics(folder, *epochs):
    history = History.empty(len(epochs[0]))
    for number, losses in enumerate(epochs):
        rows = np.flatnonzero(~np.isnan(losses))
        write(folder, number, (rows, np.asarray(losses)[rows]), rows=len(losses))
        history.record(rows, np.float32(losses)[rows], number)
    return history, Dynamics.read(folder, history)


def test_rows_that_are_learnt_at_once_were_below_ln_2_from_the_second_epoch_on(tmp_path):
    """Row 0 is; row 1 is lost again; row 2 is late; row 3 was measured once."""
    history, found = dynamics(tmp_path, [2, 2, 2, 0.1], [0.5, 0.5, 0.9, np.nan], [0.6, 0.8, 0.1, np.nan])
    facts = row_facts(history, found)
    assert facts["at_once"] == 0.25
    assert facts["medians"] == pytest.approx([2.0, 0.5, 0.6], rel=1e-3)  # the trace has float16
    assert facts["upper"] == {"share": 0, "low": 0, "high": 0} and facts["measured"] == 4


def test_the_interval_of_a_second_component_holds_its_share(tmp_path, rng):
    n = 1000
    losses = np.exp(rng.normal(np.log(0.2), 0.5, n))
    losses[:200] = np.exp(rng.normal(np.log(4), 0.3, 200))
    history, found = dynamics(tmp_path, losses, losses)
    upper = row_facts(history, found)["upper"]
    assert upper["low"] < upper["share"] < upper["high"] and upper["share"] == pytest.approx(0.2, abs=0.03)
    assert upper["high"] - upper["low"] < 0.1
    assert row_facts(history, found)["upper"] == upper  # nothing is random


def test_wrong_rows_that_are_learnt_by_heart_are_still_counted(tmp_path, rng):
    """A fifth lies apart in three epochs; in the next nine, all rows are alike, and the mean over all shows nothing."""
    n = 1000
    apart = np.exp(rng.normal(np.log(0.2), 0.5, n))
    apart[:200] = np.exp(rng.normal(np.log(4), 0.3, 200))
    history, found = dynamics(tmp_path, *[apart] * 3, *(np.exp(rng.normal(0.5, 1, n)) for _ in range(9)))
    assert upper_share(found.mean) == 0
    facts = row_facts(history, found)
    assert facts["upper"]["share"] == pytest.approx(0.2, abs=0.03) and facts["upper"]["low"] > 0.15
    first, middle = facts["upper_epochs"]
    assert first == 1 < middle < 9 and facts["upper_means"] == "all"


def test_large_first_losses_of_all_rows_do_not_hide_a_second_component(tmp_path, rng):
    """A model from scratch: three epochs at levels around 5 nats, then five in which a third lies apart."""
    n = 1500
    apart = np.exp(rng.normal(np.log(0.2), 0.4, n))
    apart[:500] = np.exp(rng.normal(np.log(1.5), 0.2, 500))
    history, found = dynamics(tmp_path, *(np.exp(rng.normal(np.log(5), 0.3, n)) for _ in range(3)), *[apart] * 5)
    facts = row_facts(history, found)
    assert upper_share(found.mean) == 0 and facts["upper_means"] == "recent"
    assert facts["upper"]["share"] == pytest.approx(1 / 3, abs=0.03)
    at = facts["upper_epochs"][1]
    weights = 0.5 ** np.arange(at, -1, -1) / 2
    weights[0] *= 2  # the first loss has nothing before it
    losses = found.losses_of(np.arange(n))[:, : at + 1]
    np.testing.assert_allclose(found.mean_until(at, "recent"), losses @ weights, rtol=1e-6)


def test_recent_means_pass_over_epochs_that_did_not_measure_a_row(tmp_path):
    """Row 0: 4, then 2, so 3. Row 1: first measured in the last epoch. Row 2: 1, 3, 5, so 1, 2, 3.5."""
    history, found = dynamics(tmp_path, [4, np.nan, 1], [np.nan, np.nan, 3], [2, 7, 5])
    assert found.mean_until(2, "recent").tolist() == [3, 7, 3.5]
    assert found.mean_until(1, "recent").tolist() == pytest.approx([4, np.nan, 2], nan_ok=True)
    assert found.mean_until(2).tolist() == [3, 7, 3]


def test_one_epoch_is_no_proof_of_a_second_component(tmp_path, rng):
    n = 1000
    apart = np.exp(rng.normal(np.log(0.2), 0.5, n))
    apart[:200] = np.exp(rng.normal(np.log(4), 0.3, 200))
    alike, hidden = np.exp(rng.normal(np.log(0.2), 0.5, n)), np.exp(rng.normal(3, 1, n))
    history, found = dynamics(tmp_path, alike, apart, hidden)
    assert upper_share(found.losses_of(np.arange(n))[:, :2].mean(axis=1)) > 0  # after the second epoch alone
    assert row_facts(history, found)["upper"] == {"share": 0, "low": 0, "high": 0}


def test_one_epoch_tells_little(tmp_path):
    history, found = dynamics(tmp_path, [2, 1])
    history.tokens[:] = 5, 15
    assert row_facts(history, found, ["order"]) == {
        "padding_causes": ["order"],
        "lengths": pytest.approx([6, 10, 14]),
        "medians": [1.5],
    }
    assert row_facts(History.empty(2), None) == {"padding_causes": []}


def test_classes_and_equal_rows_of_a_data_set():
    texts = [[1, 2], [1, 2], [1, 2], [3], [4]]
    data = Dataset.from_dict({"input_ids": texts, "label": [0, 0, 1, 0, 0]})
    assert data_facts(data) == {"rows": 5, "repeats": 1, "classes": {"count": 2, "smallest": 1, "largest": 4}}
    history = History.empty(5)
    history.record(np.arange(5), np.float32([0.1, 0.1, 2, 0.1, 2]), 0)
    learnt = data_facts(data, history)["classes"]
    assert (learnt["learnt"], learnt["learnt_of_small"]) == (0.6, 0.0)


def test_what_has_no_classes_and_what_cannot_be_read():
    assert data_facts(Dataset.from_dict({"input_ids": [[1], [1]], "labels": [[1], [1]]})) == {"rows": 2, "repeats": 1}
    assert data_facts([{"input_ids": [1]}]) == {}
