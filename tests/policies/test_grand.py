"""GraNd against Paul et al. 2021, by hand; what it shares with EL2N is tested there."""

import numpy as np

from hf_prune import Clock, History
from hf_prune.policies.grand import GraNd

# || p - y || of the four rows of test_el2n, times sqrt(||h||^2 + 1) with h = (3, 4), (0, 0), (1, 0), (0, 2)
SCORES = np.sqrt(np.array([0.14, 1.14, 6 / 9, 0.0006]) * (np.array([25, 0, 1, 4]) + 1))


def test_the_head_tells_other_rows_than_the_error():
    np.testing.assert_allclose(SCORES, [1.907878, 1.067708, 1.154701, 0.054772], atol=1e-6)
    probe, probed = GraNd(keep=1), History.empty(4, ("grad_norm",))
    probed.record(np.arange(4), np.ones(4, np.float32), 0, grad_norm=SCORES.astype(np.float32))
    clock = Clock(0, 0, 10, 0.0)
    probe.update(probed, clock, np.random.default_rng(0))
    policy, history = GraNd(keep=0.5), History.empty(4)
    policy.begin(history, probed)
    assert policy.select(history, clock, np.random.default_rng(0)).rows.tolist() == [0, 2]


def test_an_earlier_run_with_the_signal_will_do():
    earlier, history = History.empty(4, ("grad_norm", "el2n")), History.empty(4)
    signals = {"grad_norm": SCORES.astype(np.float32), "el2n": np.array([0.1, 0.9, 0.2, 0.8], np.float32)}
    earlier.record(np.arange(4), np.ones(4, np.float32), 0, **signals)
    policy = GraNd(keep=0.5)
    policy.begin(history, earlier)
    assert policy.select(history, Clock(0, 0, 10, 0.0), np.random.default_rng(0)).rows.tolist() == [0, 2]
