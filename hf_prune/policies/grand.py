"""GraNd: keep the rows of largest gradient norm early in training, once (Paul et al., NeurIPS 2021).

With g_i the gradient of row i's loss after t epochs and E the mean over runs that differ by their seed

    score_i = E || g_i ||_2;   S = the K = keep * N rows of largest score, in every round

Here g_i is the gradient of the model's linear head. With input h and a bias, its norm is
|| p - y ||_2 * sqrt(||h||_2^2 + 1): exact for the head, a lower bound of the paper's norm over all parameters.
Scores are made first, by
`hf-prune score --policy grand --output_dir scores -- SCRIPT ARGS`: keep = 1 trains on all rows and scores them.
`history="scores"` then gives them to this run.

Needs      the scores, 4 bytes per row. Scoring needs grad_norm, from training's own forward pass. The cost is the
           scoring runs of t epochs; the report includes it.
Good for   many later runs on one data set.
Not for    a single run (total time goes up); keep below 0.5; noisy labels, which get the highest scores (`skip` leaves
           out the top of the order); scores at initialisation, which follow the norm of the input (Kirsch, 2023).
Defaults   keep = 0.7 (ours; the paper sweeps it). For the scores: as EL2N, 20 of 200 epochs, 10 runs.
Deviates   only the last layer, as above; a row's score comes from its last training step, in a run with its own
           learning-rate schedule, but the code scores all rows in a pass after epoch t of a full run; for token
           outputs the score is the mean over the row's real targets; rows without a score are kept first.
Reference  https://arxiv.org/abs/2107.07075, https://arxiv.org/abs/2303.14753
"""

from dataclasses import dataclass
from typing import ClassVar

from ._static import StaticPolicy


@dataclass(frozen=True)
class GraNd(StaticPolicy):
    """Keep the rows of largest gradient norm of the head, as earlier runs have measured it.

    Args:
        keep: Share of the data to train on, in (0, 1]; 1 = train on all rows and score them.
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).
        skip: Share of the scored rows that is left out from the top of the order, in [0, 1 - keep].

    Examples:
        >>> import numpy as np
        >>> from hf_prune import Clock, History
        >>> earlier, history = History.empty(4), History.empty(4)
        >>> earlier.notes["score"] = np.array([1.91, 1.07, 1.15, 0.05], np.float32)
        >>> policy = GraNd(keep=0.5)
        >>> policy.begin(history, earlier)
        >>> policy.select(history, Clock(0, 0, 3, 0.0), np.random.default_rng(0)).rows.tolist()
        [0, 2]
    """

    signal: ClassVar[str] = "grad_norm"
