"""The table of rows and the audit, from runs that are written by hand."""

import base64
import csv
import gzip
import json
import re
import shutil

import numpy as np
import pandas
import pyarrow
import pytest
from datasets import Dataset
from pyarrow import parquet
from reports import EPOCHS, REPORT
from traces import write

from hf_prune import History
from hf_prune.cli import _parser, _shown_as, main
from hf_prune.common import storage
from hf_prune.core import Clock
from hf_prune.core.mixture import fit
from hf_prune.core.ranking import marked
from hf_prune.data import Brief
from hf_prune.data.columns import file_rows_of
from hf_prune.policies.listed import Listed
from hf_prune.records.table import COLUMNS
from hf_prune.records.trace import FOLDER, Trace
from hf_prune.report.audit import KINDS, Audit, audit, changes
from hf_prune.report.explorer import packed
from hf_prune.report.page import RunReport
from hf_prune.report.rows import BRIEF
from hf_prune.report.unfinished import report_of

N, WRONG = 200, 40  # rows, and those with a wrong label, which are the first
NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def losses_of(rng, far=True):
    losses = np.exp(rng.normal(np.log(0.1), 0.3, N))
    if far:
        losses[:WRONG] = np.exp(rng.normal(np.log(4), 0.1, WRONG))
    return losses.astype(np.float32)


def make(
    folder,
    rng,
    losses=None,
    first=1.0,
    policy="Uniform(keep=1.0)",
    saved=True,
    chosen=None,
    right=WRONG,
    heart=0,
    given=None,
):
    """The report of a run of two epochs over 200 rows, whose model predicts the labels of rows below `right` otherwise.

    In `heart` more epochs, it knows all labels by heart.
    """
    losses = losses_of(rng) if losses is None else losses
    given = np.arange(N) % 2 if given is None else given
    predicted = np.where(np.arange(N) < right, 1 - given, given)
    by_heart = (np.exp(rng.normal(0, 2, N)).astype(np.float32) for _ in range(heart))  # they tell nothing
    for round, values in enumerate((losses * np.float32(first), losses, *by_heart)):
        rows = np.arange(N)
        extras = {"given": given.astype(np.float32), "predicted": (predicted if round == 1 else given) * np.float32(1)}
        trace = Trace(folder, lambda: [0.1], pytest.fail)
        trace.write(Clock(round, round, 9, 0.0), 1.0, 1.0, N, [(marked(rows, N), rows, values)], [extras])
    history = History.empty(N)
    history.record(np.arange(N), losses, 1)
    history.tokens[:] = np.where(np.arange(N) == 7, 1, 10)
    if chosen is not None:
        history.notes["chosen"] = chosen
    texts = [f"the text of row {min(number, 198)}" for number in range(N)]
    data = Dataset.from_dict({"text": texts, "file_row": np.arange(N) + 1000})
    fields = {**vars(REPORT), "policy": policy, "rows": N, "epochs": EPOCHS}
    report = RunReport(**fields, run=folder, history=history, source=Brief(data, names=NAMES))
    if saved:
        history.save(folder / "history.safetensors")
        report.save(folder / "pruning.json")
        report.save_rows(folder, np.arange(N) + 1000)
        report.save_brief()
    return report


@pytest.fixture
def run(tmp_path, rng):
    return make(tmp_path / "run", rng)


def test_the_table_has_what_is_known_of_each_row(run):
    table = run.to_dataset()
    assert table.column_names[-1] == "loss_by_epoch" and set(table.column_names) <= set(COLUMNS)
    first, last = table[0], table[-1]
    assert (first["row"], first["file_row"], first["label"], first["predicted"]) == (0, 1000, "cat", "dog")
    assert (last["label"], last["predicted"], last["times_trained"], last["times_pruned"]) == ("dog", "dog", 2, 0)
    assert first["loss_by_epoch"] == pytest.approx([4, 4], abs=1) and first["length"] == len("the text of row 0")
    assert first["wrong_probability"] > 0.9 and last["wrong_probability"] < 0.1
    assert (table[198]["duplicate_group"], table[199]["duplicate_group"]) == (198, 198)


def test_a_saved_run_has_the_same_table_and_describes_its_columns(run):
    saved = RunReport.of_folder(run.run).table()
    pandas.testing.assert_frame_equal(
        saved.to_pandas().sort_index(axis=1), run.table().to_pandas().sort_index(axis=1), check_like=True
    )
    assert saved.schema.field("mean_loss").metadata[b"description"].decode() == COLUMNS["mean_loss"]
    uploaded = pandas.read_parquet(run.run / "history.parquet")  # push_to_hub uploads it
    assert {"text", "path"}.isdisjoint(uploaded) and {"label", "predicted", "wrong_probability"} <= set(uploaded)
    assert (run.run / FOLDER / BRIEF).is_file()


def test_likely_wrong_rows_are_listed_by_their_excess(run):
    found = audit(run)
    assert set(found.rows.tolist()) == set(range(WRONG))
    excess = run.dynamics.excess[found.rows]
    assert (np.diff(excess) <= 0).all()
    text = found.text(3)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "40 of 200 rows are likely mislabelled" in " ".join(text.split())
    assert "... and 37 more" in text and "the text of row" in text


def test_a_row_that_the_model_predicts_as_labelled_is_not_listed(tmp_path, rng):
    assert set(audit(make(tmp_path, rng, right=WRONG - 5)).rows.tolist()) == set(range(WRONG - 5))


def test_labels_that_are_learnt_by_heart_later_are_still_listed(tmp_path, rng):
    run = make(tmp_path, rng, heart=30)
    assert run.facts["upper_epochs"][0] == 1 and run.dynamics.extras["predicted"][0] == run.dynamics.extras["given"][0]
    assert set(audit(run).rows.tolist()) == set(range(WRONG)) and fit(run.dynamics.mean) is None
    first = run.to_dataset()[0]
    assert (first["label"], first["predicted"]) == ("cat", "dog") and first["wrong_probability"] > 0.9


def test_the_page_has_the_rows_that_are_likely_mislabelled_also_without_a_script(tmp_path, rng):
    run = make(tmp_path, rng, heart=30)
    assert set(run.dynamics.hardest(WRONG).tolist()).isdisjoint(range(5))  # so another list does not have them
    run.save_examples(run.source.dataset)
    run.html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    cards = page.partition('data-list="mislabelled"')[2].partition("</section>")[0]
    rows = [int(row) for row in re.findall(r'data-row="(\d+)"', cards)]
    assert rows == audit(run).rows.tolist() and "the text of row 3" in cards


def test_no_row_is_a_card_of_both_lists_of_suspects(tmp_path, rng):
    run = make(tmp_path, rng, right=WRONG - 5)  # five are predicted as labelled: never learnt, and not likely wrong
    run.html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    lists = (
        page.partition(f'data-list="{name}"')[2].partition("</section>")[0] for name in ("mislabelled", "never_learnt")
    )
    likely, others = (set(map(int, re.findall(r'data-row="(\d+)"', cards))) for cards in lists)
    assert likely == set(range(WRONG - 5)) and set(range(WRONG - 5, WRONG)) <= others and not likely & others


def test_the_command_knows_every_kind():
    parser = next(action for action in _parser()._actions if action.dest == "command").choices["audit"]
    assert next(action for action in parser._actions if action.dest == "only").choices == KINDS


def test_nothing_is_listed_before_the_model_has_learnt(tmp_path, rng):
    early = make(tmp_path, rng, losses=rng.normal(4.2, 0.1, N).astype(np.float32), first=1.02, right=N)
    assert early.dynamics.never_learnt.sum() > N / 5  # what a list by losses alone would have
    for kind in ("mislabelled", "unlearnt"):
        found = audit(early, kind)
        assert not len(found.rows)
        assert "No row is listed: no estimate of wrong labels is meaningful yet" in found.said
        assert "train longer, until the model knows most of its rows" in found.said
        with pytest.raises(ValueError, match="nothing to leave out"):
            found.first(10).write_drop(str(tmp_path / "drop.csv"))
    assert np.isnan(early.table()["wrong_probability"].to_numpy()).all()


def test_without_a_second_component_somebody_must_say_how_many(tmp_path, rng):
    losses = losses_of(rng, far=False)
    losses[0] = 1  # one is no component
    found = audit(make(tmp_path, rng, losses=losses))
    assert found.rows[0] == 0 and set(found.rows.tolist()) < set(range(WRONG))  # never learnt, and predicted otherwise
    assert "How many labels are wrong can't be said" in found.said
    with pytest.raises(ValueError, match="Look at the rows, and give --top N"):
        found.write_drop(str(tmp_path / "drop.csv"))
    found.first(1).write_drop(str(tmp_path / "drop.csv"))


def test_other_kinds(run, tmp_path, rng):
    assert audit(run, "duplicates").rows.tolist() == [199]
    first = audit(run, "duplicates").text().splitlines()[3].split()
    assert first[:2] == ["1199", "1198"]  # both are numbers in the file
    assert audit(run, "short").rows.tolist() == [7]
    assert audit(run, "rare").rows.tolist() == []
    rare = audit(make(tmp_path / "rare", rng, given=np.where(np.arange(N) == 3, 5, np.arange(N) % 2)), "rare")
    assert rare.rows.tolist() == [3] and "1 rare classes (of 3)" in rare.said
    with pytest.raises(ValueError, match="choose one of mislabelled, duplicates"):
        audit(run, "wrong")


def test_what_no_round_has_read_is_neither_short_nor_rare(tmp_path, rng):
    report = make(tmp_path, rng, saved=False)
    report.history.tokens[20:30] = 0
    assert audit(report, "short").rows.tolist() == [7]
    table = report.table()
    labels = pyarrow.array([None if row < 5 else name for row, name in enumerate(table["label"].to_pylist())])
    object.__setattr__(report, "table", lambda: table.set_column(table.column_names.index("label"), "label", labels))
    assert audit(report, "rare").rows.tolist() == [] and "the smallest of 2 has" in audit(report, "rare").said


def test_the_labels_of_a_regression_are_numbers(tmp_path, rng):
    report = make(tmp_path / "run", rng, given=np.arange(N) / 8)
    for known in (report, RunReport.of_folder(report.run)):
        first = known.table().slice(3, 1).to_pylist()[0]
        assert (first["label"], first["predicted"]) == (3 / 8, 5 / 8)
        assert "Rare classes are not known" in audit(known, "rare").said
    said = audit(report).said
    assert "predicts another label" not in said and "hard rows may be among them" in said
    assert "0.375" in audit(report).text(N)
    shown = unpacked(report)
    assert {one["key"]: one["kind"] for one in shown["columns"]}["predicted"] == "number" and not shown["names"]
    assert "mismatch" not in {one["key"] for one in shown["lists"]}


def unpacked(report):
    """The rows as the page's script gets them."""
    data = packed(report.history, report.dynamics, report.judgement, report.table(), {})
    return json.loads(gzip.decompress(base64.b64decode(data)))


@pytest.mark.parametrize("name", ["drop.csv", "drop.json", "drop.parquet"])
@pytest.mark.parametrize("is_numbered", [True, False])
def test_the_policy_listed_takes_the_list(run, tmp_path, name, is_numbered):
    from hf_prune.data.listing import listed_rows

    audit(run).write_drop(str(tmp_path / name))
    data = run.source.dataset if is_numbered else run.source.dataset.remove_columns("file_row")
    listed = listed_rows(data, str(tmp_path / name), None, None, pytest.fail)
    assert np.flatnonzero(listed).tolist() == list(range(WRONG))
    assert Listed(file=str(tmp_path / name), drop=True)


def test_the_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--top", "5", "--csv", "some.csv", "--json", "some.json", "--parquet", "some.parquet"]
    assert main(["audit", "run", *arguments, "--drop", "drop.csv"]) == 0
    said = capsys.readouterr().out
    assert "drop.csv: 5 rows to leave out, by --policy listed --file drop.csv --drop True" in said
    with open("some.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        len(rows) == 5 and rows[0]["label"] != rows[0]["predicted"] and len(json.loads(rows[0]["loss_by_epoch"])) == 2
    )
    assert len(json.loads((tmp_path / "some.json").read_text())) == len(pandas.read_parquet("some.parquet")) == 5
    assert main(["audit", "run", "--top", "30", "--csv", "some.csv"]) == 0
    said = capsys.readouterr().out
    assert "some.csv: 30 rows" in said and "... and 20 more" in said  # printed are 20
    assert main(["audit", "run", "--only", "short"]) == 0
    assert "1 of 200 rows are short" in capsys.readouterr().out


def test_a_spreadsheet_runs_no_text_as_a_formula(tmp_path, rng):
    report = make(tmp_path, rng, saved=False)
    texts = np.array(["=1+1", "@SUM(A1)", "-1+1", "+cmd", "\t=1", "-1.5", "a=1", *["text"] * (N - 7)], object)
    report.source.__dict__["_columns"] = {"text": texts}
    Audit(report.table(), "short", np.arange(7), "").write(str(tmp_path / "rows.csv"), "csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        found = [row["text"] for row in csv.DictReader(file)]
    assert found == ["'=1+1", "'@SUM(A1)", "'-1+1", "'+cmd", "'\t=1", "-1.5", "a=1"]


def test_a_copy_without_the_private_folder_can_be_audited(run, capsys):
    before = audit(run)
    shutil.rmtree(run.run / FOLDER)
    copy = RunReport.of_folder(run.run)
    assert audit(copy).rows.tolist() == before.rows.tolist() and audit(copy).said == before.said
    issues = copy.to_datalab().get_issues("training_dynamics")
    assert np.flatnonzero(issues["is_training_dynamics_issue"]).tolist() == list(range(WRONG))


def test_a_run_that_has_not_ended_can_be_audited(tmp_path, rng, capsys):
    report = make(tmp_path, rng, saved=False)
    write_rounds_again(report, {**EPOCHS[0], "steps_full": 10, "padding": 0})
    assert main(["audit", str(tmp_path)]) == 0
    assert "40 of 200 rows are likely mislabelled" in " ".join(capsys.readouterr().out.split())


def write_rounds_again(report, account):
    """Write the rounds of a report with their cost, as a run of this version does."""
    for round in report.dynamics.rounds:
        arrays, header = storage.load(round.path)
        del header["account"], header["policy"]
        cost = {name: value for name, value in account.items() if name != "epoch"}
        storage.save(round.path, arrays, header | {"run": "one", "account": cost, "policy": "Uniform(keep=1.0)"})


@pytest.mark.parametrize("lost", ["rows", "steps_full"])
def test_rounds_without_their_cost_are_refused(tmp_path, rng, lost):
    account = {**EPOCHS[0], "steps_full": 10, "padding": 0}
    write_rounds_again(make(tmp_path, rng, saved=False), {name: account[name] for name in account if name != lost})
    with pytest.raises(ValueError, match=f"its rounds are damaged .*{lost}"):
        report_of(tmp_path)


def test_rounds_that_are_gone_when_they_are_read_leave_a_message(tmp_path, rng, monkeypatch):
    make(tmp_path, rng, saved=False)
    monkeypatch.setattr("hf_prune.report.unfinished.read_trace", lambda *_: ([], []))
    with pytest.raises(ValueError, match="is not there"):
        report_of(tmp_path)


def test_the_second_run_says_what_the_list_changed(run, tmp_path, rng, capsys):
    policy = "Listed(column=None, file='drop.csv', drop=True, one_of=None)"
    make(tmp_path / "next", rng, losses_of(rng, far=False), policy=policy, chosen=np.arange(N) >= WRONG)
    for folder, accuracy in ((run.run, 0.8), (tmp_path / "next", 0.84)):
        (folder / "results.json").write_text(json.dumps({"quality": {"metric": "accuracy", "value": accuracy}}))
    after = RunReport.of_folder(tmp_path / "next")
    said = changes(RunReport.of_folder(run.run), after)
    assert "A list left out 40 of 200 rows" in said and "accuracy: 0.8 before, 0.84 now." in said
    assert "Wrong labels before: " in said and "Wrong labels now: the losses don't fall into two groups" in said
    assert main(["audit", str(tmp_path / "next"), "--before", str(run.run)]) == 0
    assert "A list left out 40 of 200 rows" in capsys.readouterr().out
    assert re.search(r"Rows never learnt: \d+ before, \d+ now", said)


def test_a_list_for_a_third_run_has_the_rows_of_the_second_too(tmp_path, rng, capsys):
    policy = "Listed(column=None, file='drop.csv', drop=True, one_of=None)"
    make(tmp_path / "next", rng, policy=policy, chosen=np.arange(N) < N - 3)
    path = tmp_path / "drop.csv"
    assert main(["audit", str(tmp_path / "next"), "--top", "2", "--drop", str(path)]) == 0
    assert "2 rows, and the 3 that this run left out, to leave out" in capsys.readouterr().out
    numbers = pandas.read_csv(path)["row"].tolist()
    assert len(numbers) == 5 and numbers[-3:] == [197, 198, 199] and max(numbers[:2]) < WRONG


def test_two_runs_that_say_the_same(run):
    said = changes(run, run)
    assert said.count("have losses apart") == 1 and "Whether the model is better is not known" in said


# ---- Hostile and older files ----


@pytest.mark.parametrize(
    "argv, said",
    [
        (["nowhere"], "is not there"),
        (["run", "--top", "0"], "--top must be 1 or more, got 0"),
        (["run", "--drop", "list.doc"], "suffix '.doc' is not known; give .csv, .json or .parquet"),
        (["run", "--only", "wrong"], "--only"),
    ],
)
def test_mistakes_are_named_on_one_line(run, argv, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["audit", *argv])
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "name, values, said",
    [
        ("wrong_probability", ["high"] * N, "column 'wrong_probability' has the type string"),
        ("excess_loss", [[1.0]] * N, "column 'excess_loss' has the type list"),
        ("loss_epoch_1", [b"1"] * N, "column 'loss_epoch_1' has the type binary"),
        ("label", [["cat"]] * N, "column 'label' has the type list"),
        ("file_row", [None, *range(1, N)], "column file_row lacks numbers"),
        ("duplicate_group", [0.5] * N, "column duplicate_group lacks numbers"),
        ("duplicate_group", [N] * N, "column duplicate_group names rows that are not there"),
        ("a signal", [{"a": 1}] * N, "column 'a signal' has the type struct"),
    ],
)
def test_columns_of_other_types_are_refused(run, name, values, said):
    path = run.run / "history.parquet"
    table = parquet.read_table(path)
    table = table.drop_columns([name]) if name in table.column_names else table
    parquet.write_table(table.append_column(name, pyarrow.array(values)), path)
    with pytest.raises(ValueError, match=f"history.parquet is damaged .*{said}"):
        audit(run.run)
    assert RunReport.of_folder(run.run)._known_rows()[0] is None  # the page does without


def test_two_columns_of_one_name_are_refused(run):
    path = run.run / "history.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.append_column("label", table["label"]), path)
    with pytest.raises(ValueError, match="history.parquet is damaged"):
        audit(run.run)


@pytest.mark.parametrize("text", ["[1]", "{", '{"quality": "good"}'])
def test_damaged_results_are_named(run, text):
    (run.run / "results.json").write_text(text)
    report = RunReport.of_folder(run.run)
    with pytest.raises(ValueError, match="results.json is damaged"):
        changes(report, report)


def test_what_a_file_says_gives_a_terminal_no_commands(run, capsys):
    saved = json.loads((run.run / "pruning.json").read_text())
    (run.run / "pruning.json").write_text(json.dumps(saved | {"policy": "Listed(\x1b]0;title\x07 drop=True)"}))
    history = History.load(run.run / "history.safetensors")
    history.notes["chosen"] = np.arange(N) > 0
    history.save(run.run / "history.safetensors")
    assert main(["audit", str(run.run)]) == 0
    assert "`Listed(?]0;title? drop=True)`" in capsys.readouterr().out


def test_letters_that_a_terminal_lacks_are_escaped():
    assert _shown_as("é…\ud800\n", "ascii") == "\\xe9\\u2026\\ud800\n" and _shown_as("é\t", "utf-8") == "é\t"


def test_a_column_file_row_that_holds_no_numbers_is_no_number_of_rows():
    assert file_rows_of(Dataset.from_dict({"file_row": ["a", "b"]})) is None
    assert file_rows_of(Dataset.from_dict({"file_row": [1, None]})) is None
    assert file_rows_of(Dataset.from_dict({"file_row": [4, 2]})).tolist() == [4, 2]


def test_damaged_tables_are_refused(run):
    (run.run / "history.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match="history.parquet is damaged"):
        audit(run.run)
    pandas.DataFrame({"row": [0]}).to_parquet(run.run / "history.parquet")
    with pytest.raises(ValueError, match="not of the 200 rows of this run"):
        audit(run.run)
    (run.run / "history.parquet").unlink()
    with pytest.raises(ValueError, match="is not there"):
        audit(run.run)


def test_a_terminal_gets_no_commands_from_a_text(tmp_path, rng):
    report = make(tmp_path, rng, saved=False)
    texts = ["\x1b[31mred\n\x07text"] * N
    report.source.__dict__["_columns"] = {"text": np.array(texts, object)}
    text = audit(report).text()
    assert "\x1b" not in text and "\x07" not in text and "?[31mred ?text" in text


def test_a_run_of_an_earlier_version_has_fewer_columns(tmp_path, rng):
    losses = losses_of(rng)
    for round in range(2):
        write(tmp_path, round, (np.arange(N), losses), rows=N)
    history = History.empty(N)
    history.record(np.arange(N), losses, 1)
    report = RunReport(**{**vars(REPORT), "rows": N}, run=tmp_path, history=history)
    assert {"label", "predicted", "text"}.isdisjoint(report.table().column_names)
    assert set(audit(report).rows.tolist()) == set(range(WRONG))


def test_a_model_from_scratch_whose_first_losses_are_all_large_still_tells_wrong_rows(tmp_path, rng):
    """The means over all epochs show one group, so list and probability go by recent ones."""
    apart = np.exp(rng.normal(np.log(0.2), 0.4, N))
    apart[:WRONG] = np.exp(rng.normal(np.log(1.5), 0.1, WRONG))
    losses = [*(np.exp(rng.normal(np.log(5), 0.4, N)) for _ in range(3)), *[apart] * 5]
    for round, values in enumerate(losses):
        write(tmp_path, round, (np.arange(N), values), rows=N)
    history = History.empty(N)
    history.record(np.arange(N), np.float32(apart), 7)
    report = RunReport(**{**vars(REPORT), "rows": N}, run=tmp_path, history=history)
    assert fit(report.dynamics.mean) is None and report.facts["upper_means"] == "recent"
    assert set(audit(report).rows.tolist()) >= set(range(WRONG)) and len(audit(report).rows) < WRONG + 5


@pytest.mark.parametrize("has_column", [True, False])
def test_rounds_say_more_than_a_table_of_an_earlier_save(run, has_column):
    file = run.run / "history.parquet"
    table = parquet.read_table(file).drop_columns(["wrong_probability"])
    unknown = pyarrow.nulls(N, pyarrow.float64())  # of another type, too
    parquet.write_table(table.append_column("wrong_probability", unknown) if has_column else table, file)
    read = RunReport.of_folder(run.run)
    assert set(audit(read).rows.tolist()) == set(range(WRONG))
    field = read.table().schema.field("wrong_probability")
    assert field.type == pyarrow.float32() and field.metadata[b"description"].decode() == COLUMNS[field.name]


# ---- cleanlab ----


def test_datalab_gets_training_dynamics_as_issues(run):
    lab = run.to_datalab()
    issues = lab.get_issues("training_dynamics")
    assert np.flatnonzero(issues["is_training_dynamics_issue"]).tolist() == list(range(WRONG))
    assert issues["training_dynamics_score"][:WRONG].max() < 0.1 < 0.9 < issues["training_dynamics_score"][WRONG:].min()
    assert lab.get_info("training_dynamics")["said"] == run.judgement.line
    assert lab.class_names == ["cat", "dog"]


def test_datalab_has_the_rows_that_the_audit_lists_without_an_estimate(tmp_path, rng):
    losses = losses_of(rng, far=False)
    losses[0] = 1  # one is no component
    report = make(tmp_path, rng, losses=losses)
    issues = report.to_datalab().get_issues("training_dynamics")
    found = np.flatnonzero(issues["is_training_dynamics_issue"]).tolist()
    assert report.judgement.state in ("none", "unsure") and 0 in found and found == sorted(audit(report).rows.tolist())


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # cleanlab's own
@pytest.mark.filterwarnings("ignore:The inplace keyword:FutureWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword:Warning")
def test_datalab_takes_probabilities_too(run):
    dog = np.where((np.arange(N) % 2 == 1) ^ (np.arange(N) < WRONG), 0.9, 0.1)
    lab = run.to_datalab(np.stack([1 - dog, dog], axis=1))
    assert np.flatnonzero(lab.get_issues("label")["is_label_issue"]).tolist() == list(range(WRONG))


def test_datalab_needs_labels_of_classes(tmp_path, rng):
    report = make(tmp_path, rng, saved=False, given=np.arange(N) / 8)  # a regression
    with pytest.raises(ValueError, match="no labels of one class each"):
        report.to_datalab()
