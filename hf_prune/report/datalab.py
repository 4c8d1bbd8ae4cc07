"""What training shows about rows, as issues of cleanlab's Datalab."""

from typing import Any, ClassVar

import numpy as np

ISSUE = "training_dynamics"


def make_datalab(table: Any, is_listed: np.ndarray, said: str, pred_probs: np.ndarray | None) -> Any:
    """See `RowTable.to_datalab`.

    Args:
        table: The table of the rows, N, whose labels are names of classes.
        is_listed: (N,) bool, the rows that the audit lists.
        said: Whether the losses tell wrong labels, in words.
        pred_probs: (N, C) float, or None.

    Raises:
        ImportError: cleanlab is not installed.
        ValueError: A row has no label.
    """
    try:
        from cleanlab import Datalab
    except ImportError as error:
        raise ImportError('to_datalab() needs cleanlab: pip install "cleanlab[datalab]".') from error
    if lacking := table["label"].null_count:
        raise ValueError(f"to_datalab(): of {lacking:,} rows no label is known, and Datalab takes one of each row.")
    columns = {"label": table["label"].to_pylist()}
    if "text" in table.column_names:
        columns["text"] = table["text"].to_pylist()
    lab = Datalab(data=columns, label_name="label", verbosity=0)
    types: dict[str, dict[str, Any]] = {ISSUE: {"scores": _scores(table), "is_issue": is_listed, "said": said}}
    _register()
    if pred_probs is not None:
        types["label"] = {}
    lab.find_issues(pred_probs=pred_probs, issue_types=types)
    return lab


def _scores(table: Any) -> np.ndarray:
    """(N,) float, the score of each row, from 0 (likely wrong) to 1."""
    wrong = table["wrong_probability"].to_numpy() if "wrong_probability" in table.column_names else np.array(np.nan)
    excess = table["excess_loss"].to_numpy() if "excess_loss" in table.column_names else np.full(len(table), np.nan)
    known = np.where(np.isnan(excess), -np.inf, excess)
    place = np.empty(len(table))
    place[np.argsort(-known, kind="stable")] = np.linspace(0, 1, len(table))  # largest excess first
    return np.where(np.isnan(wrong), place, 1 - wrong)


def _register() -> None:
    """Make the issue known to Datalab, which keeps a list of its kinds for the whole process."""
    import pandas
    from cleanlab.datalab.internal.issue_manager import IssueManager
    from cleanlab.datalab.internal.issue_manager_factory import REGISTRY, register
    from cleanlab.datalab.internal.task import Task

    if ISSUE in REGISTRY[Task.CLASSIFICATION]:
        return

    class TrainingDynamics(IssueManager):
        description: ClassVar[str] = "Rows whose losses in training are apart from the others', as wrong labels have."
        issue_name: ClassVar[str] = ISSUE
        verbosity_levels: ClassVar[dict[int, list[str]]] = {0: ["said"], 1: [], 2: [], 3: []}

        def find_issues(self, scores: np.ndarray, is_issue: np.ndarray, said: str, **_: Any) -> None:
            self.issues = pandas.DataFrame({f"is_{self.issue_name}_issue": is_issue, self.issue_score_key: scores})
            self.summary = self.make_summary(float(scores.mean()))
            self.info = {"said": said}

    register(TrainingDynamics)
