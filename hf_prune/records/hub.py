"""A History on the Hugging Face Hub: found in a repository, and put there as a data set of its own."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from ..common import storage
from ..common.markdown import in_code, markdown_table
from ..core import History
from .history_file import HISTORY, write_history
from .table import COLUMNS, ROWS, write_rows

CARD = "README.md"


def find_history(source: str | os.PathLike[str], **options: Any) -> Path:
    """The file of a History.

    Args:
        source: The file, the folder that holds it, or the id of a repository of the Hub ("user/name").
        **options: Those of `huggingface_hub.hf_hub_download`; without `repo_type`, a model goes before a data set.

    Raises:
        ValueError: There is none, or it can't be had.
    """
    path = Path(source)
    file = path / HISTORY if path.is_dir() else path
    if file.suffix == ".parquet":
        raise ValueError(f"history={str(source)!r} is a table for people to read; give the {HISTORY} beside it.")
    if file.is_file():
        return file
    if not path.is_dir() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
        return _download(str(source), **options)
    raise ValueError(
        f"history={str(source)!r}: there is no {file}. Name a folder that a run with a policy saved its model in, the "
        f"{HISTORY} in it, or a repository of the Hub that holds one."
    )


def _download(repo_id: str, repo_type: str | None = None, **options: Any) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    download: Callable[..., str] = cast(Any, huggingface_hub).hf_hub_download  # one of its types is not known
    reasons: list[str] = []
    for kind in ("model", "dataset") if repo_type is None else (repo_type,):
        try:
            return Path(download(repo_id, HISTORY, repo_type=kind, library_name="hf_prune", **options))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            reasons.append(f"as a {kind}: {type(error).__name__}, {first_line(error)}")
    raise ValueError(
        f"history={repo_id!r}: there is no such folder here, and no {HISTORY} of that repository could be had from the "
        f"Hub ({'; '.join(reasons)}). Check the name, the revision and the connection; of a private or gated "
        "repository, log in with `hf auth login` or give a token to History.from_pretrained."
    )


def first_line(error: BaseException) -> str:
    """What an error of the Hub says in short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s*\(Request ID: [^)]*\)", "", lines[0]) if lines else ""


def push_history(
    history: History,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload History",
) -> str:
    """Put a History on the Hub as a data set: its file, a table of its rows for the viewer, and a card, in one commit.

    Args:
        history: What to put there.
        repo_id: "user/name"; made where it does not exist.
        private: Whether a new repository is private; None = as the account has it.
        token: With the right to write; None = the one that is logged in.
        revision: The branch to commit to; None = main.
        commit_message: Its first line.

    Returns:
        The address of the commit.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: The repository has a card and no History: its viewer would show this one in place of its data.
        huggingface_hub.errors.HfHubHTTPError: The Hub refuses, or can't be reached. Nothing was changed there, and the
            same call again goes on.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="hf_prune")
    with TemporaryDirectory() as made:
        folder = Path(made)
        write_history(folder / HISTORY, history)
        write_rows(folder / ROWS, history)
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        there = [api.file_exists(repo_id, file, repo_type="dataset", revision=revision) for file in (CARD, HISTORY)]
        if there == [True, False]:
            raise ValueError(
                f"repo_id={repo_id!r} is a data set with a card of its own, which this History's would replace; name "
                f"another repository, such as {repo_id}-history."
            )
        storage.write_text(folder / CARD, _card(repo_id, history, columns_of(folder / ROWS)))
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
        ).commit_url


def columns_of(path: str | os.PathLike[str]) -> list[str]:
    """Names of a Parquet file's columns."""
    from pyarrow import parquet

    return parquet.read_schema(path).names


def _card(repo_id: str, history: History, columns: list[str]) -> str:
    """The card of a History that is a data set of its own."""
    from huggingface_hub import DatasetCard, DatasetCardData

    rows, facts = len(history), history.facts
    data = DatasetCardData(
        pretty_name=f"hf_prune History of {rows:,} rows",
        tags=["hf_prune"],
        configs=[{"config_name": "default", "data_files": ROWS}],
    )
    policy, key, cost = facts.get("policy"), facts.get("key"), facts.get("cost")
    known = [
        f"policy: {in_code(policy)}" if policy else "policy: not known",
        f"rows of the training set: {rows:,}",
        f"fingerprint of the training set: {facts.get('data') or 'none'}",
        f"key column: {in_code(key)}" if key else "key column: none",
        f"cost: {_cost(cost)}" if cost else "cost: not known",
    ]
    given = in_code(f'history_key="{key}"')
    by_key = f"; with {given}, its rows are matched by that column, in any order" if key else ""
    meaning = [(in_code(name), COLUMNS.get(name, "a further signal")) for name in columns]
    lines = [
        f"# What training has revealed about {rows:,} rows",
        "",
        "A History of hf_prune: for each row of a training set, what a run has measured. Another run on the same rows",
        "can prune from its first epoch:",
        "",
        "```python",
        "from hf_prune import PruningTrainer",
        "",
        f'trainer = PruningTrainer(..., policy="infobatch", history="{repo_id}")',
        "```",
        "",
        f'`History.from_pretrained("{repo_id}")` reads it alone. A training set of another length is refused, and one '
        f"that differs in a sample of its rows{by_key}.",
        "",
        *(f"- {fact}" for fact in known),
        "",
        f"`{HISTORY}` is what a run reads; `{ROWS}` has a line for each row, with null for what was not measured:",
        "",
        markdown_table(["column", "what it is"], meaning),
    ]
    return str(DatasetCard(f"---\n{data}\n---\n\n" + "\n".join(lines) + "\n"))


def _cost(cost: dict[str, float]) -> str:
    amount = f"{cost['tokens']:,.0f} positions, padding included" if cost["tokens"] else f"{cost['rows']:,.0f} rows"
    runs = "1 run" if cost["runs"] == 1 else f"{cost['runs']:.0f} runs"
    return f"{runs}, {amount}, {cost['seconds']:,.1f} seconds"
