"""RHOLoss: train on rows that are learnable and not yet learned (Mindermann et al., ICML 2022); by row.

With l_i the latest loss of row i and IL_i its loss under a reference model that was trained on held-out rows

    score_i = l_i - IL_i;   S = the K = keep * N rows of largest score, anew every round

A noisy row has a high IL, and a learned row has a low l: both get a low score. IL comes from `history="scores"`, which
`hf-prune score --model REFERENCE --output_dir scores -- SCRIPT ARGS` makes. The reference must not be trained on these
rows: it would memorise them, and the rule would become meaningless.

Needs      loss, which the training forward pass gives, and IL: 8 bytes per row; one run of the reference model, which
           may be small and serves many runs.
Good for   noisy, web-scale data.
Not for    small clean sets (the held-out rows are lost to training); a reference as strong as the model. At equal
           compute no gain was found on BERT and T5 pre-training (Kaddour et al., 2023).
Defaults   keep = 0.7 (ours); the paper and the authors' code train on 32 of each 320 rows drawn.
Deviates   the K largest of all rows by stored losses, but the paper takes the largest of each large batch by a fresh
           forward pass: pruned rows keep their old loss, and each row is trained once before any is pruned by its
           score. A row without IL gets the median IL.
Reference  https://arxiv.org/abs/2206.07137, https://arxiv.org/abs/2307.06440
"""

from dataclasses import dataclass

import numpy as np

from ..core import BudgetPolicy, Clock, History, Selection


@dataclass(frozen=True)
class RHOLoss(BudgetPolicy):
    """Keep the rows whose loss exceeds that of a reference model most.

    Args:
        keep: Share of the data to train on in each round, in (0, 1].
        unit: What `keep` is a share of: "rows", or "tokens" (a pruned short sentence saves little).

    Examples:
        >>> reference, history = History.empty(4), History.empty(4)
        >>> reference.record(np.arange(4), np.array([0.1, 0.2, 0.5, 4.9], np.float32), round=0)
        >>> policy = RHOLoss(keep=0.5)
        >>> policy.begin(history, reference)
        >>> history.record(np.arange(4), np.array([0.2, 1.0, 3.0, 5.0], np.float32), round=0)  # row 3 is noise
        >>> policy.select(history, Clock(1, 1, 3, 1 / 3), np.random.default_rng(0)).rows.tolist()
        [1, 2]
    """

    def begin(self, history: History, earlier: History | None) -> None:
        known = np.zeros(0, bool) if earlier is None else np.isfinite(earlier.loss)
        if earlier is None or not known.any():
            raise ValueError(
                f"{self!r} compares with the losses of a reference model on these rows, and there are none. Train a "
                "model on other, held-out rows; measure its losses on these with `hf-prune score --model REFERENCE "
                "--output_dir scores -- SCRIPT ARGS` and give history='scores'. A model that was trained on these rows "
                "has memorised them and is no reference."
            )
        history.notes["reference"] = np.where(known, earlier.loss, np.median(earlier.loss[known]))

    def select(self, history: History, clock: Clock, rng: np.random.Generator) -> Selection:
        score = history.loss - history.notes.get("reference", np.float32(0))
        return Selection(self.best(score, history, clock, rng))
