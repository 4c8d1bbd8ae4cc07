"""What processes hold, brought together; several of them are tested in tests/distributed."""

import numpy as np
import pytest
import torch

from hf_prune import Selection
from hf_prune.policies import make
from hf_prune.train.ranks import Ranks


def test_one_process_holds_all():
    ranks, array = Ranks(), torch.ones(2, 3)
    assert ranks.is_alone and ranks.is_main
    assert ranks.join([array], 5) == ([array], 5)
    assert (ranks.gather([1, 2]), ranks.sum((3, 4))) == ([[1, 2]], [3, 4])


class Two(Ranks):
    """The second of two processes, whose first has answered."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer

    def gather(self, numbers):
        own, self.answer = list(numbers), self.answer or list(numbers)
        return [self.answer, own]


def test_processes_must_be_given_the_same_answer():
    policy, rows = make("uniform"), np.arange(4)
    ranks = Two()
    ranks.check_equal(policy, Selection(rows), 4, 2)
    ranks.check_equal(policy, Selection(rows.copy()), 4, 2)
    with pytest.raises(ValueError, match="Uniform answers otherwise in process 1 .* in rows and forecast of round 2"):
        ranks.check_equal(policy, Selection(rows[:3]), 3, 2)
    weights = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="in weights and lr_scale of round 2"):
        ranks.check_equal(policy, Selection(rows, weights, 0.5), 4, 2)
