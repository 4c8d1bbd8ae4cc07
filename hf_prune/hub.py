"""A History on the Hugging Face Hub: found in a repository, and put there as a data set of its own."""

import json
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from . import storage

HISTORY = "history.safetensors"  # beside a saved model, and in a data set of its own
TABLE = "history.parquet"
_COLUMNS = {
    "row": "number of the row in the training set, from 0",
    "key": "a hash of the row's key column, which names it whatever its place",
    "loss": "its latest loss in nats (of text: the mean over its target tokens); null = never measured",
    "seen": "the round in which that was measured, from 0; null = never",
    "tokens": "its tokens without padding; 0 = not known",
    "faults": "how often its loss was no finite number",
}


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
    if file.is_file():
        return file
    if not path.is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        return _download(str(source), **options)
    raise ValueError(
        f"history={str(source)!r}: there is no {file}. Name a folder that a run with a policy saved its model in, the "
        f"{HISTORY} in it, or a repository of the Hub that holds one."
    )


def _download(repo_id: str, repo_type: str | None = None, **options: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    reasons: list[str] = []
    for kind in ("model", "dataset") if repo_type is None else (repo_type,):
        try:
            return Path(hf_hub_download(repo_id, HISTORY, repo_type=kind, library_name="hf_prune", **options))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            reasons.append(f"as a {kind}: {type(error).__name__}, {_first_line(error)}")
    raise ValueError(
        f"history={repo_id!r}: there is no such folder here, and no {HISTORY} of that repository could be had from the "
        f"Hub ({'; '.join(reasons)}). Check the name, the revision and the connection; of a private or gated "
        "repository, log in with `hf auth login` or give a token to History.from_pretrained."
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s*\(Request ID: [^)]*\)", "", lines[0]) if lines else ""


def push_history(
    arrays: dict[str, np.ndarray],
    header: dict[str, Any],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload History",
) -> str:
    """Put a History on the Hub as a data set: its file, a table of its rows for the viewer, and a card, in one commit.

    Args:
        arrays: Its content, as in its file.
        header: Its facts, as in its file.
        repo_id: "user/name"; made where it does not exist.
        private: Whether a new repository is private; None = as the account has it.
        token: With the right to write; None = the one that is logged in.
        revision: The branch to commit to; None = main.
        commit_message: Its first line.

    Returns:
        The address of the commit.

    Raises:
        ImportError: pyarrow is not installed.
        huggingface_hub.errors.HfHubHTTPError: The Hub refuses, or can't be reached. Nothing was changed there, and the
            same call again goes on.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="hf_prune")
    with TemporaryDirectory() as made:
        folder = Path(made)
        storage.save(folder / HISTORY, arrays, header)
        columns = table_of(arrays)
        write_table(folder / TABLE, columns)
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        card = _card(repo_id, header, list(columns), len(arrays["loss"]))
        storage.write_text(folder / "README.md", card)
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
        ).commit_url


def table_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of a table of a History's rows, by name: what is known of each row, NaN where nothing is.

    Args:
        arrays: As in the History's file.

    Returns:
        Arrays of shape (N,).
    """
    n = len(arrays["loss"])
    columns: dict[str, np.ndarray] = {"row": np.arange(n)}
    if "keys" in arrays:
        columns["key"] = arrays["keys"]
    columns |= {name: arrays[name] for name in ("loss", "seen", "tokens", "faults")}
    for name, array in arrays.items():
        group, _, short = name.partition("/")
        if group in ("signals", "notes") and array.shape == (n,):
            columns[short if short not in columns else name.replace("/", "_")] = array
    return columns


def write_table(path: str | os.PathLike[str], columns: dict[str, np.ndarray]) -> None:
    """Write a parquet file, aside first; NaN becomes null, and so does -1 in `seen`.

    Args:
        path: The file.
        columns: Arrays of shape (N,) by name.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("A table of the rows needs pyarrow: pip install pyarrow.") from error
    filled = {
        name: pa.array(array, mask=array < 0 if name == "seen" else None, from_pandas=True)
        for name, array in columns.items()
    }
    aside = Path(path).with_name(Path(path).name + ".tmp")
    try:
        parquet.write_table(pa.table(filled), aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _card(repo_id: str, header: dict[str, Any], columns: list[str], rows: int) -> str:
    """The card of a History that is a data set of its own."""
    from huggingface_hub import DatasetCard, DatasetCardData

    policy, cost = header.get("policy"), header.get("cost")
    data = DatasetCardData(
        pretty_name=f"hf_prune History of {rows:,} rows",
        tags=["hf_prune"],
        configs=[{"config_name": "default", "data_files": TABLE}],
    )
    facts = [
        f"- policy: `{policy}`" if policy else "- policy: not known",
        f"- rows of the training set: {rows:,}; its fingerprint: {header.get('data') or 'none'}",
        f"- key column: {json.dumps(header['key'])}" if header.get("key") else "- key column: none",
        f"- cost: {_cost(cost)}" if cost else "- cost: not known",
    ]
    meaning = [f"| `{name}` | {_COLUMNS.get(name, 'a signal, or a score of the policy')} |" for name in columns]
    return str(
        DatasetCard(
            f"---\n{data.to_yaml()}\n---\n"
            f"""
# What training has revealed about {rows:,} rows

A History of [hf_prune](https://pypi.org/project/hf-prune/): for each row of a training set, what a run has measured.
Another run on the same rows can prune from its first epoch:

```python
from hf_prune import PruningTrainer

trainer = PruningTrainer(..., policy="infobatch", history="{repo_id}")
```

`History.from_pretrained("{repo_id}")` reads it alone. A run on other rows is refused{_refused(header)}.

"""
            + "\n".join(facts)
            + f"\n\n`{HISTORY}` is what a run reads; `{TABLE}` shows the same, a line for each row:\n\n"
            + "\n".join(["| column | meaning |", "| --- | --- |", *meaning])
            + "\n"
        )
    )


def _cost(cost: dict[str, float]) -> str:
    amount = f"{cost['tokens']:,.0f} tokens, padding included" if cost["tokens"] else f"{cost['rows']:,.0f} rows"
    runs = "1 run" if cost["runs"] == 1 else f"{cost['runs']:.0f} runs"
    return f"{runs}, {amount}, {cost['seconds']:,.1f} seconds"


def _refused(header: dict[str, Any]) -> str:
    key = header.get("key")
    return f"; with `history_key={json.dumps(key)}`, rows are matched by that column, in any order" if key else ""
