"""Files of others: a History, rounds, a checkpoint, the folder of a run. What is wrong is told in one sentence."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from pages import Page
from reports import REPORT
from safetensors.numpy import save as serialize
from traces import write

from hf_prune import History
from hf_prune.cli import main
from hf_prune.common import foreign, storage
from hf_prune.compare.tables import runs_table
from hf_prune.records.history_file import HISTORY
from hf_prune.records.hub import _card
from hf_prune.records.table import write_rows
from hf_prune.records.trace import FOLDER, read_trace
from hf_prune.report import figures, page
from hf_prune.report.page import NUMBERS, RunReport
from hf_prune.train.checkpoint import STATE, PruningState

N = 12
TASK = tiny.TASKS["one label"]


def history(n=N):
    made = History.empty(n, ("correct",))
    made.record(np.arange(n), np.linspace(0.5, 2, n, dtype=np.float32), 0, correct=np.ones(n, np.float32))
    made.tokens[:] = 5
    made.notes["visits"] = np.arange(n)
    cost = {"runs": 1, "rows": 24, "tokens": 120, "seconds": 2.5}
    made.facts = {"policy": "Uniform(keep=0.5)", "data": None, "key": None, "run": "a", "cost": cost}
    return made


def save(path, arrays, header):
    """Any arrays and any header, whole as far as checksums go."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    storage.save(path, arrays, header)


# ---- A History ----

OTHERS = {
    "loss": [np.zeros(N, np.float64), np.zeros(N, np.int32), np.full(N, np.inf, np.float32), np.zeros(0, np.float32)],
    "last_round": [
        np.zeros(N, np.int64),
        np.zeros(N - 1, np.int32),
        np.full(N, -2, np.int32),
        np.zeros((N, 1), np.int32),
    ],
    "tokens": [np.full(N, -1, np.int32), np.zeros(N + 1, np.int32), np.zeros(N, np.float32)],
    "faults": [np.zeros(N, np.int8), np.zeros(3, np.uint8), np.zeros(N, bool)],
    "signals/correct": [np.ones(N - 1, np.float32), np.ones(N, np.int32), np.full(N, -np.inf, np.float32)],
    "keys": [np.zeros(N - 1, np.uint64), np.zeros(N, np.int64)],
}
OTHERS["loss"] += [np.full(N, np.nan, np.float32), np.float32(3), np.zeros((N, 2), np.float32)]
FACTS = [("policy", 3), ("policy", "x" * 10_001), ("key", ["a"]), ("run", {}), ("data", "x"), ("data", 1.5)]
FACTS += [("cost", 3), ("cost", [1]), ("cost", {"runs": 1}), ("kind", "round"), ("kind", None), ("kind", [1])]
FACTS += [("cost", dict.fromkeys(("runs", "rows", "tokens", "seconds"), value)) for value in ("x", None, -1)]


@pytest.mark.parametrize(
    ("name", "array"), [(name, array) for name, arrays in OTHERS.items() for array in (*arrays, None)]
)
def test_an_array_of_another_kind_is_no_history(tmp_path, name, array):
    arrays = history().arrays() | {name: np.asarray(array)} if array is not None else history().arrays()
    if array is None and arrays.pop(name, None) is None or name.startswith("signals/") and array is None:
        return
    save(tmp_path / HISTORY, arrays, {"kind": "history"})
    for read in (History.load, History.from_pretrained):
        with pytest.raises(ValueError, match=rf"{HISTORY}: This is no History: ") as refused:
            read(tmp_path / HISTORY)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    with pytest.raises(ValueError, match=r"history='.*This is no History: .* Give another copy, or leave it out"):
        tiny.trainer(tmp_path, TASK.model(), TASK.rows(N), "infobatch", history=str(tmp_path))


@pytest.mark.parametrize(("name", "fact"), FACTS, ids=str)
def test_a_fact_of_another_kind_is_none_of_a_history(tmp_path, name, fact):
    save(tmp_path / HISTORY, history().arrays(), {"kind": "history", **history().facts, name: fact})
    with pytest.raises(ValueError, match="is no History") as refused:
        History.load(tmp_path / HISTORY)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    with pytest.raises(ValueError, match="history='.* is no History"):
        tiny.trainer(tmp_path, TASK.model(), TASK.rows(N), "infobatch", history=str(tmp_path))


def test_a_history_object_is_checked_as_a_file_is(tmp_path):
    wrong = dataclasses.replace(history(), last_round=np.zeros(N - 1, np.int32))
    with pytest.raises(ValueError, match="history=a History: This is no History: last_round must be"):
        tiny.trainer(tmp_path, TASK.model(), TASK.rows(N), "infobatch", history=wrong)


def test_a_signal_that_was_infinite_is_saved_as_not_measured(tmp_path):
    made = history()
    made.signals["correct"][:2] = np.inf, -np.inf
    made.save(tmp_path / HISTORY)
    found = History.load(tmp_path / HISTORY)
    assert np.isnan(found.signals["correct"]).tolist() == [True] * 2 + [False] * (N - 2)
    assert found.signals["correct"].dtype == np.float32 and np.isinf(made.signals["correct"][0])


def raw(path, header, arrays=None, metadata=None):
    """A file whose header is any text, with a checksum that fits."""
    arrays = {"x": np.zeros(1)} if arrays is None else arrays
    text = header if isinstance(header, str) else json.dumps(header)
    value = f"{storage._checksum(arrays, text)} {text}" if metadata is None else metadata
    Path(path).write_bytes(serialize(arrays, metadata={"hf_prune": value}))


@pytest.mark.parametrize(
    "header", ["[]", "3", "null", '"x"', "{}", "{", "[" * 100_000, '{"a":' * 100_000, "NaN", '{"format": [1]}', ""]
)
def test_a_header_of_something_else_is_damage(tmp_path, header):
    raw(tmp_path / HISTORY, header)
    with pytest.raises(storage.DamagedFile, match=HISTORY):
        storage.load(tmp_path / HISTORY)
    with pytest.raises(ValueError, match=r"history='.*Give another copy"):
        tiny.trainer(tmp_path, TASK.model(), TASK.rows(N), "infobatch", history=str(tmp_path))


@pytest.mark.parametrize("metadata", ["", "x", "9" * 5000 + " {}", " {}", "1"])
def test_a_checksum_of_something_else_is_damage(tmp_path, metadata):
    raw(tmp_path / "x", "{}", metadata=metadata)
    with pytest.raises(storage.DamagedFile):
        storage.load(tmp_path / "x")


def test_names_and_facts_of_others_stay_words_in_a_card(tmp_path):
    evil = "x`|\n---\ntags: [evil]\n---\n# <script>alert(1)</script>"
    made = history()
    made.facts |= {"policy": evil, "key": evil}
    made.signals = {evil: made.signals["correct"], "row": np.zeros(N, np.float32), "loss": np.zeros(N, np.float32)}
    write_rows(tmp_path / "history.parquet", made)
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "history.parquet")
    assert table["row"].to_pylist() == list(range(N)) and table["loss"].to_pylist() == made.loss.tolist()
    text = _card("ann/x", made, table.column_names)
    head, body = text.split("\n---\n", 1)
    assert "evil" not in head and "\n---" not in body and "\n#" not in body.replace("\n# What training", "")
    spans = [line for line in body.splitlines() if "script" in line]
    assert len(spans) == 4 and all(line.count("``") == 2 for line in spans)  # each within a span of code
    cells = [line for line in spans if line.startswith("|")]
    assert [line.replace(r"\|", "").count("|") for line in cells] == [3]


# ---- Rounds ----


def change(path, **more):
    arrays, header = storage.load(path)
    arrays |= {name: more.pop(name) for name in ("losses", "trained", "rescored") if name in more}
    storage.save(path, {name: array for name, array in arrays.items() if array is not None}, header | more)


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"round": 10**12},
            {"round": 2},
            {"round": -1},
            {"round": "1"},
            {"round": None},
            {"round": 1.5},
            {"round": True},
        ),
        *({"epoch": 10**12}, {"epoch": 5}, {"epoch": "x"}, {"epoch": -1}, {"rows": 10**12}, {"rows": "10"}),
        *({"seconds": "x"}, {"seconds": -1}, {"seconds": math.inf}, {"lr_scale": None}, {"lr_scale": math.nan}),
        *({"learning_rates": 3}, {"learning_rates": ["x"]}, {"learning_rates": [[1]]}, {"run": 3}, {"more": 3}),
        *({"kind": "history"}, {"kind": None}, {"losses": np.zeros(1, np.float16)}, {"losses": np.zeros((2, 2))}),
        *({"losses": None}, {"trained": None}, {"trained": np.zeros(1, np.uint8)}, {"trained": np.zeros(2, np.int16)}),
        {"rescored": np.full(9, 255, np.uint8)},
    ],
    ids=str,
)
def test_a_round_of_something_else_is_a_flaw(tmp_path, fields):
    for round in range(3):
        write(tmp_path, round, ([0, 1, 2], [1.0, 2.0, 3.0]))
    change(tmp_path / FOLDER / "round-00001.safetensors", **fields)
    rounds, flaws = read_trace(tmp_path, 10)
    assert [round.round for round in rounds] == [0, 2]
    assert flaws[0].startswith("round-00001.safetensors is left out: ") and len(flaws) == 2


def test_a_round_of_any_number_is_soon_read(tmp_path):
    write(tmp_path, 0, ([0, 1], [1.0, 2.0]))
    write(tmp_path, 10**9, ([0, 1], [1.0, 2.0]))
    rounds, flaws = read_trace(tmp_path, 10)
    assert [round.round for round in rounds] == [0, 10**9]
    assert flaws == ["Of the rounds before the last, 999,999,999 can't be read, the first of them 1."]
    path = tmp_path / FOLDER / f"round-{10**12}.safetensors"
    shutil.copy(tmp_path / FOLDER / f"round-{10**9}.safetensors", path)
    change(path, round=10**12)
    assert [round.round for round in read_trace(tmp_path, 10)[0]] == [0, 10**9]


# ---- A checkpoint ----


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """One that was saved within a round that rescores."""
    folder = tmp_path_factory.mktemp("run")
    policy = "kakurenbo:by_confidence=True,hide=0.5,threshold=0.34"
    settings = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3}
    tiny.trainer(folder, TASK.model(), TASK.rows(N), policy, **settings).train()
    return folder / "checkpoint-5"


HEADERS = [("seed", "x"), ("seed", 2**70), ("seed", None), ("facts", []), ("facts", {}), ("facts.policy", 3)]
HEADERS += [
    ("facts.batch", 0),
    ("facts.batch", "4"),
    ("facts.order", 4),
    ("facts.data", [1]),
    ("epochs", 3),
    ("epochs", [3]),
    ("epochs", [{}]),
]
HEADERS += [("seconds_evaluating", "x"), ("round", 3), ("round", {}), ("round.clock", None), ("round.clock", {"x": 1})]
HEADERS += [("round.clock.round", -1), ("round.clock.round", "x"), ("round.plan", None), ("round.plan.at", [0, 3, 2])]
HEADERS += [
    ("round.plan.at", [0, 0, 0]),
    ("round.plan.at", [0, "x", 1]),
    ("round.plan.steps", 10**30),
    ("round.plan", {}),
]
HEADERS += [("round.plan.first_step", None), ("round.lr_scale", 0), ("round.padded_tokens", -1), ("round.span", ...)]
ARRAYS = [("selection/rows", np.arange(3) + 10**9), ("selection/rows", np.zeros(3, np.int64)), ("selection/rows", None)]
ARRAYS += [("selection/weights", np.zeros(3, np.float32)), ("selection/rescore", np.array([-1])), ("loss", None)]
ARRAYS += [
    ("measured/rows", np.array([N])),
    ("measured/rows", np.zeros((2, 2), np.int64)),
    ("measured/tokens", np.zeros(1)),
]
ARRAYS += [
    ("measured/values", np.zeros((1, 99), np.float32)),
    ("measured/values", np.float32(3)),
    ("rest", np.array([N])),
]
ARRAYS += [("loss", np.zeros(N)), ("loss", np.full(N, np.inf, np.float32)), ("last_round", np.zeros(3, np.int32))]


@pytest.mark.parametrize(("place", "value"), [*HEADERS, *ARRAYS], ids=lambda value: str(value)[:30])
def test_a_state_of_something_else_is_refused_by_name(checkpoint, tmp_path, place, value):
    arrays, header = storage.load(checkpoint / STATE)
    assert header["round"] is not None
    PruningState.load(checkpoint, N)
    if "/" in place or place in arrays or place == "rest":
        arrays[place] = value if value is None else np.asarray(value)
    else:
        *path, last = place.split(".")
        inner = header
        for name in path:
            inner = inner[name]
        inner[last] = value
        if value is ...:
            del inner[last]
    header |= {"format": storage.FORMAT}
    storage.save(tmp_path / STATE, {name: array for name, array in arrays.items() if array is not None}, header)
    with pytest.raises(
        ValueError, match="resume_from_checkpoint='.*(is no pruning state|no History|This History)"
    ) as refused:
        PruningState.load(tmp_path, N)
    assert "\n" not in str(refused.value)


# ---- The folder of a run ----

DOT = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = tiny.trainer(
        folder,
        TASK.model(),
        TASK.rows(N),
        "uniform:keep=0.5",
        num_train_epochs=2,
        eval_dataset=TASK.rows(4),
        eval_strategy="epoch",
    )
    trainer.train()
    trainer.save_model()
    return folder


@pytest.fixture
def theirs(run, tmp_path, monkeypatch):
    """A copy of it, to be changed; figures are drawn, but not painted."""
    monkeypatch.setattr(figures, "png", lambda figure: b"")
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def shown(folder):
    RunReport.of_folder(folder).html(folder / "_report.html")
    return Page(folder / "_report.html")


def put(folder, examples):
    path = folder / FOLDER / page.EXAMPLES
    path.write_text(examples if isinstance(examples, str) else json.dumps(examples))


@pytest.mark.parametrize(
    "picture",
    [
        *(
            "http://evil/x.png",
            "https://evil/x.png",
            "//evil/x.png",
            "file:///etc/passwd",
            "x.png",
            "javascript:alert(1)",
        ),
        *("data:text/html;base64,aaaa", "data:image/svg+xml;base64,aaaa", "data:image/png,x", " " + DOT, DOT + "\n"),
        *(
            DOT + '" onerror="x',
            "data:image/png;base64,",
            "data:image/png;base64,http://evil",
            3,
            [DOT],
            {"a": 1},
            True,
        ),
    ],
    ids=str,
)
def test_only_a_picture_that_lies_in_the_file_is_shown(theirs, picture):
    numbers = {str(row): {"row": row, "texts": {"a": "b"}, "picture": picture, "label": None} for row in range(N)}
    put(theirs, numbers)
    seen = shown(theirs)
    assert not [image for image in seen.all("img") if image.get("class") == "picture"]
    assert "examples.json has what can't be shown (row '0': its picture" in seen.text and "and 11 more" in seen.text
    text = (theirs / "_report.html").read_text()
    assert 'src="http' not in text and not [image for image in seen.all("img") if "onerror" in image]
    (policy,) = [meta["content"] for meta in seen.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "img-src data:" in policy
    put(theirs, {name: row | {"picture": DOT} for name, row in numbers.items()})
    assert {image["src"] for image in shown(theirs).all("img") if image.get("class") == "picture"} == {DOT}


@pytest.mark.parametrize(
    "content",
    [
        *(
            "[" * 100_000,
            '{"a":' * 100_000,
            "[]",
            "3",
            "null",
            '"x"',
            "NaN",
            "{",
            "",
            '{"0": ' + "[" * 900 + "]" * 900 + "}",
        ),
        *({"0": value} for value in (3, None, [], "x", {}, {"texts": 3}, {"texts": []}, {"texts": {"a": 3}})),
        *({"0": {"texts": {}, "label": value}} for value in (3, [], {}, math.nan, True)),
        *({"0": {"texts": {"a": value}}} for value in (None, ["b"], {"c": "d"}, math.inf)),
        {"0": {"texts": {str(number): "x" for number in range(10_000)}}},
    ],
    ids=lambda value: str(value)[:30],
)
def test_shown_rows_of_something_else_are_a_flaw_of_the_page(theirs, content):
    put(theirs, content)
    text = shown(theirs).text
    assert "examples.json is left out: " in text or "examples.json has what can't be shown" in text
    assert main(["report", str(theirs)]) == 0


def test_shown_rows_that_are_too_many_bytes_are_left_out(theirs):
    with open(theirs / FOLDER / page.EXAMPLES, "wb") as file:
        file.truncate(1 << 40)  # none of which is on the disk
    assert "examples.json is left out: its 1,099,511,627,776 bytes are more than" in shown(theirs).text


def test_shown_rows_in_a_pipe_are_left_out(theirs):
    path = theirs / FOLDER / page.EXAMPLES
    path.unlink()
    os.mkfifo(path)
    assert "examples.json is left out: it is no file" in shown(theirs).text


def test_texts_of_any_length_and_row_numbers_of_others_are_shown_as_they_can(theirs):
    put(theirs, {str(row): {"row": "<b>", "texts": {"a" * 9999: "b" * 10**6}, "label": "<i>"} for row in range(N)})
    seen = shown(theirs)
    assert "<i>" in seen.text and not seen.all("i") and not seen.all("b")
    assert (theirs / "_report.html").stat().st_size < 200_000


NUMBERS_OF_OTHERS = [
    *(("policy", 3), ("policy", None), ("training_rows", 1e12), ("training_rows", 0), ("training_rows", "x")),
    *(("training_rows", N + 1), ("epochs", 3), ("epochs", [3]), ("epochs", [{}]), ("epochs", {}), ("totals", [])),
    *(("log_history", 3), ("log_history", [3]), ("earlier_runs", 3), ("totals", {})),
    *(("totals.faults", "x"), ("totals.optimizer_steps_full", None), ("missing", 3), ("missing", {"x": 3})),
    *(("epochs.0.rows", "x"), ("epochs.0.rows", -1), ("epochs.0.epoch", 1e30), ("epochs.0.epoch", "0")),
    *(
        ("epochs.0.tokens", [1]),
        ("epochs.0.steps", math.inf),
        ("log_history.0.step", "x"),
        ("log_history.0.epoch", [1]),
    ),
    ("log_history.0.prune/rows", {}),
    ("policy", "x" * 10_001),
]


@pytest.mark.parametrize(("place", "value"), NUMBERS_OF_OTHERS, ids=str)
def test_numbers_of_something_else_are_refused_in_one_line(theirs, capsys, place, value):
    found = json.loads((theirs / NUMBERS).read_text())
    *path, last = place.split(".")
    inner = found
    for name in path:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value
    (theirs / NUMBERS).write_text(json.dumps(found))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(theirs)])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is no report of a pruned run (" in said or "They are of two runs" in said


@pytest.mark.parametrize(
    "entry",
    [
        {"eval_accuracy": [0.5, 0.25], "step": 1, "epoch": 1.0},
        {"eval_x": "text", "step": 1, "epoch": 1.0},
        {"eval_x": 1e308, "step": 1e15, "epoch": 1e15},
        {"eval_loss": -1e308, "step": 1, "epoch": 1},
        {"eval_$x$ \\frac": 0.5, "step": 1, "epoch": 1},
        {"eval_x": 0.5},
        {"learning_rate": "x", "epoch": 1.0},
        {"learning_rate": 1e308, "epoch": 1.0},
        {"learning_rate": 0.5},
        {"loss": {"deep": [1]}},
        {"prune/tokens": 5, "epoch": 1.0},
        {"prune/rows": 5, "loss": 0.5},
    ],
    ids=str,
)
def test_whatever_a_log_holds_there_is_a_page(run, tmp_path, entry):
    folder = shutil.copytree(run, tmp_path / "run")
    found = json.loads((folder / NUMBERS).read_text())
    found["log_history"] += [entry, entry]
    (folder / NUMBERS).write_text(json.dumps(found))
    assert "Data pruning" in shown(folder).text
    RunReport.of_folder(folder).figure(folder / "run.png", ["eval_loss", *entry])


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", "null", "{", "{}", "\xff" * 10_000])
def test_a_report_of_something_else_is_refused_in_one_line(theirs, capsys, content):
    (theirs / NUMBERS).write_text(content, encoding="latin-1")
    with pytest.raises(SystemExit):
        main(["report", str(theirs)])
    said = " ".join(capsys.readouterr().err.split())
    assert "is no report of a pruned run" in said and len(said) < 700


def test_pictures_are_not_written_through_links(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    target = tmp_path / "mine.txt"
    target.write_text("mine")
    (folder / "_report").mkdir()
    (folder / "_report" / "share.png").symlink_to(target)
    shown(folder)
    shutil.rmtree(folder / "_report")
    (tmp_path / "theirs").mkdir()
    (folder / "_report").symlink_to(tmp_path / "theirs")
    shown(folder)
    assert not any((tmp_path / "theirs").iterdir())
    assert target.read_text() == "mine" and (folder / "_report" / "share.png").read_bytes().startswith(b"\x89PNG")


# ---- Tables ----

RESULTS = {
    "policy": "UCB(keep=0.5)",
    "seconds": {"training": 3.0},
    "quality": {"metric": "accuracy", "value": 0.5},
    "pruning": {"training_rows": 10, "totals": REPORT.totals()},
}


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"policy": 3},
            {"policy": ["x"]},
            {"policy": "x" * 100_000},
            {"seconds": 3},
            {"seconds": {"a": "x"}},
            {"seconds": {"a": math.nan}},
        ),
        *({"quality": 3}, {"quality": {"metric": "a|b", "value": 1}}, {"quality": {"metric": ["x"], "value": 1}}),
        *(
            {"quality": {"metric": "x", "value": "y"}},
            {"quality": {"metric": "x", "value": {}}},
            {"pruning": None},
            {"pruning": {"training_rows": 0, "totals": {}}},
        ),
        {"pruning": {"training_rows": 10, "totals": REPORT.totals() | {"rows": "x"}}},
    ],
    ids=str,
)
def test_results_of_something_else_are_refused_by_a_table(tmp_path, change):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    assert "`UCB(keep=0.5)`" in runs_table([path])
    path.write_text(json.dumps(RESULTS | change))
    with pytest.raises(ValueError, match="results.json is no results.json of a recipe"):
        runs_table([path])


def test_a_cell_of_a_table_is_one_whatever_stands_in_it(tmp_path):
    path = tmp_path / "a|b\n<b>*x*" / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RESULTS | {"policy": "Mine(x='a`|`b\n', path='/data/ann/x', token='sesame')"}))
    (line,) = runs_table([path]).splitlines()[2:]
    assert line.replace(r"\|", "").count("|") == 10 and "<b>" not in line
    assert "``Mine(x='a`\\|`b ', path='x', token='TOKEN')``" in line


# ---- What they are read by ----


def test_a_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is no file"):
        foreign.read_json(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="it is no file"):
        foreign.read_json(tmp_path / "zero")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 11, "3", None, True, [3], 10**400])
def test_a_number_out_of_bounds_is_named(value):
    with pytest.raises(ValueError, match="seeds must be a number from 0 to 10, got ") as refused:
        foreign.number(value, "seeds", 0, 10)
    assert len(str(refused.value)) < 120
    assert foreign.number(3, "seeds", 0, 10) == 3
