"""EL2N: keep the rows of largest error norm early in training, once (Paul et al., NeurIPS 2021).

With p the class probabilities after t epochs, y the one-hot label and E the mean over runs that differ by their seed

    score_i = E || p(x_i) - y_i ||_2, in [0, sqrt(2)];   S = the K = keep * N rows of largest score, in every round

Scores are made first, by `hf-prune score --policy el2n --output_dir scores -- SCRIPT ARGS`: keep = 1 trains on all rows
and scores them. `history="scores"` then gives them to this run.

Needs      the scores, 4 bytes per row. Scoring needs el2n, from training's own forward pass. The cost is the scoring
           runs of t epochs; the report includes it.
Good for   many later runs on one data set; scores carry over between architectures.
Not for    a single run (total time goes up); keep below 0.5; noisy labels, which get the highest scores: `skip` leaves
           out the top of the order, as the authors' code can.
Defaults   keep = 0.7 (ours; the paper sweeps it). For the scores: t = 20 of 200 epochs is usual (`--num_train_epochs`);
           the authors' code averages 10 runs; with one run it is "single-run EL2N".
Deviates   a row's score comes from its last training step, but the code scores all rows in a pass after epoch t; a
           scoring run has its own learning-rate schedule, but the code stops a full run; for token outputs the score
           is the mean over the row's real targets; rows without a score are kept first.
Reference  https://arxiv.org/abs/2107.07075
"""

from dataclasses import dataclass
from typing import ClassVar

from ._static import StaticPolicy


@dataclass(frozen=True)
class EL2N(StaticPolicy):
    """Keep the rows of largest error norm, as earlier runs have measured it.

    Args:
        keep: Share of the data to train on, in (0, 1]; 1 = train on all rows and score them.
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        skip: Share of the scored rows that is left out from the top of the order, in [0, 1 - keep].

    Examples:
        >>> import numpy as np
        >>> from hf_prune import Clock, History
        >>> earlier, history = History.empty(4), History.empty(4)
        >>> earlier.notes["score"] = np.array([0.37, 1.07, 0.82, 0.02], np.float32)
        >>> policy = EL2N(keep=0.5)
        >>> policy.begin(history, earlier)
        >>> policy.select(history, Clock(0, 0, 3, 0.0), np.random.default_rng(0)).rows.tolist()
        [1, 2]
    """

    signal: ClassVar[str] = "el2n"
