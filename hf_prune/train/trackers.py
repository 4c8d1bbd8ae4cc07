"""Sends a run's report to the trackers in `report_to`, at the end of training: figures, and the table of suspects."""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import Trainer, TrainerCallback

from ..common.markdown import in_words, markdown_table
from ..report.audit import audit
from ..report.page import RunReport
from .owned import Owned

_SUSPECTS = 50  # rows in the table
_COLUMNS = ("row", "label", "predicted", "text", "wrong_probability", "excess_loss", "mean_loss", "times_trained")


class Trackers(Owned, TrainerCallback):
    """Runs before the trackers' own callbacks, which close their runs at the end of training.

    Args:
        trainer: The trainer of the run.
        report: Returns the report of the run; None = there is no policy.
        warn: Logs a warning, on the main process only.
    """

    def __init__(self, trainer: Trainer, report: Callable[[], RunReport | None], warn: Callable[[str], None]):
        super().__init__(trainer)
        self._report = report
        self._warn = warn

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the report. What fails is told; the run has ended well."""
        named = [name for name in args.report_to if name in _SENDERS]
        if not named or not state.is_world_process_zero or (report := self._report()) is None:
            return
        with TemporaryDirectory() as folder:
            page, table = Path(folder, "report.html"), []
            try:
                table = _suspects(report)
                report.html(page)
            except Exception as error:  # any error: what is missing is only for people
                self._warn(f"The report lacks parts for {', '.join(named)} ({type(error).__name__}: {error}).")
            for name in named:
                try:
                    _SENDERS[name](self.trainer, report, page, table)
                except Exception as error:  # any error, of the network too
                    self._warn(f"report_to={name!r} did not get the report ({type(error).__name__}: {error}).")


def _suspects(report: RunReport) -> list[tuple[Any, ...]]:
    """The first rows that `hf-prune audit` lists, in the order of `_COLUMNS`; None for what is not known."""
    found = audit(report).first(_SUSPECTS)
    rows = found.table.take(found.rows).to_pylist()
    return [tuple(row.get(name) for name in _COLUMNS) for row in rows]


def _figures(page: Path) -> dict[str, Path]:
    return {f"pruning/{path.stem}": path for path in sorted(page.with_suffix("").glob("*.png"))}


def _to_tensorboard(trainer: Trainer, report: RunReport, page: Path, table: list[tuple[Any, ...]]) -> None:
    import numpy as np
    from PIL import Image

    handler: Any = trainer.callback_handler
    writers = (getattr(callback, "tb_writer", None) for callback in handler.callbacks)
    if (writer := next((one for one in writers if one is not None), None)) is None:
        return
    step = trainer.state.global_step
    writer.add_text("pruning/report", f"`{report.policy}`\n\n{report.summary()}", step)
    if table:
        writer.add_text("pruning/suspects", markdown_table(_COLUMNS, [[*map(_cell, line)] for line in table]), step)
    for name, path in _figures(page).items():
        writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
    writer.flush()


def _to_wandb(trainer: Trainer, report: RunReport, page: Path, table: list[tuple[Any, ...]]) -> None:
    wandb: Any = sys.modules["wandb"]  # transformers' callback has loaded it and begun its run
    sent: dict[str, Any] = {name: wandb.Image(str(path)) for name, path in _figures(page).items()}
    if table:
        sent["pruning/suspects"] = wandb.Table(columns=[*_COLUMNS], data=[[*line] for line in table])
    if page.exists():
        sent["pruning/report"] = wandb.Html(page.read_text(encoding="utf-8"))
    if sent:
        wandb.log(sent)


def _to_mlflow(trainer: Trainer, report: RunReport, page: Path, table: list[tuple[Any, ...]]) -> None:
    mlflow: Any = sys.modules["mlflow"]
    if table:
        columns = dict(zip(_COLUMNS, map(list, zip(*table, strict=True)), strict=True))
        mlflow.log_table(columns, "pruning/suspects.json")
    if page.exists():
        mlflow.log_artifacts(str(page.parent), "pruning")
    mlflow.log_text(report.summary(), "pruning/report.md")


def _to_trackio(trainer: Trainer, report: RunReport, page: Path, table: list[tuple[Any, ...]]) -> None:
    import pandas

    trackio: Any = sys.modules["trackio"]
    sent: dict[str, Any] = {name: trackio.Image(str(path)) for name, path in _figures(page).items()}
    if table:
        sent["pruning/suspects"] = trackio.Table(dataframe=pandas.DataFrame(table, columns=[*_COLUMNS]))
    sent["pruning/report"] = trackio.Markdown(report.summary())
    trackio.log(sent)


_SENDERS: dict[str, Callable[[Trainer, RunReport, Path, list[tuple[Any, ...]]], None]] = {
    "tensorboard": _to_tensorboard,
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
    "trackio": _to_trackio,
}


def is_tracked(args: Any) -> bool:
    """Whether training arguments name a tracker that gets the report."""
    return any(name in _SENDERS for name in args.report_to)


def _cell(value: Any) -> str:
    """A value in a cell of Markdown."""
    return f"{value:.3g}" if isinstance(value, float) else in_words(str("" if value is None else value))
