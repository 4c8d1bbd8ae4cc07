"""What every recipe does with a run that has ended, that was killed, and that can't begin."""

import ast
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import talks
from recipe_runs import FLAGS_OF, ROOT, load, run_and_kill, run_forked, write_rows

ENDED = "output_dir='out' holds a finished run; give another, or remove it."
STEPS = {  # when the run is killed: in its second epoch; None = as soon as it has saved a checkpoint
    "translate": None,
    "text_classification": 18.5,
    "image_classification": 14.5,
    "instruct": 9.5,
}
MARKS = {"instruct": talks.DEPRECATED}


EVERY = [pytest.param(name, marks=MARKS.get(name, ())) for name in FLAGS_OF]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def shortened(flags):
    """Without the fields of the policy."""
    return [flag for at, flag in enumerate(flags) if not {"--ratio", "--anneal"} & {flag, flags[at - 1]}]


def read(folder, name):
    return json.loads((folder / "out" / name).read_text())


def account(folder):
    """What must not depend on an interruption."""
    results = read(folder, "results.json")
    epochs = [
        {name: value for name, value in epoch.items() if "seconds" not in name}
        for epoch in results["pruning"]["epochs"]
    ]
    losses = [log.get("loss") for log in read(folder, "trainer_state.json")["log_history"]]
    return results["scores"], epochs, losses, read(folder, "predictions.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_killed_run_goes_on_with_the_same_command_and_ends_once(name, tmp_path, monkeypatch):
    whole, killed = (tmp_path / "whole"), (tmp_path / "killed")
    for folder in (whole, killed):
        folder.mkdir()
        write_rows(name, folder)
    assert run_forked(name, whole, *FLAGS_OF[name])
    if STEPS[name] is None:
        run_and_kill(name, killed, *FLAGS_OF[name])
    else:
        assert not run_forked(name, killed, *FLAGS_OF[name], kill_at=STEPS[name])
    assert list(killed.glob("out/checkpoint-*")) and not (killed / "out" / "results.json").exists()
    assert run_forked(name, killed, *FLAGS_OF[name])
    assert account(killed) == account(whole)
    monkeypatch.chdir(killed)
    with pytest.raises(ValueError, match=ENDED):
        load(name).main(FLAGS_OF[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_policy_gets_the_column_and_the_rows_of_the_file_that_it_names(name, tmp_path):
    """Rows 0, 3, 6 ... of the file are in `bad.txt`; of 12 groups, each round trains one row each."""
    write_rows(name, tmp_path)
    rows = pq.read_table(tmp_path / "train.parquet")
    numbers = np.arange(len(rows))
    pq.write_table(rows.append_column("group", pa.array(numbers % 12)), tmp_path / "train.parquet")
    (tmp_path / "bad.txt").write_text("\n".join(map(str, numbers[::3])))
    flags = "--policy listed --file bad.txt --drop True --one_of group --num_train_epochs 1".split()
    assert run_forked(name, tmp_path, *shortened(FLAGS_OF[name]), *flags)
    table = pq.read_table(tmp_path / "out" / "history.parquet").to_pydict()
    trained = [row for row, seen in zip(table["file_row"], table["seen"], strict=True) if seen is not None]
    assert len(trained) == len({row % 12 for row in trained}) == 8  # the groups 0, 3, 6 and 9 are all in the file
    assert not any(row % 3 == 0 for row in trained)


@pytest.mark.parametrize("name", EVERY)
def test_a_column_for_the_policy_is_one_of_its_own(name, tmp_path):
    write_rows(name, tmp_path)
    taken = {"translate": "en", "text_classification": "label", "image_classification": "image"}.get(name)
    flags = [*shortened(FLAGS_OF[name]), "--policy", "listed", "--one_of"]
    with pytest.raises(ValueError, match="column='none': .*train.parquet has no such column; it has "):
        load(name).main([*flags, "none"])
    if taken is not None:  # instruct makes new columns of those that it reads
        with pytest.raises(ValueError, match=f"column='{taken}' is trained on, or called as one that is read"):
            load(name).main([*flags, taken])


@pytest.mark.parametrize("name", EVERY)
def test_a_finished_run_is_refused_before_its_data_are_read(name, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=ENDED):
        load(name).main(FLAGS_OF[name])


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_model_size_is_refused(name, tmp_path):
    write_rows(name, tmp_path)
    with pytest.raises(ValueError, match=r"model_size='huge' is not known; give one of tiny, small, base\."):
        load(name).main([*FLAGS_OF[name], "--model_size", "huge"])


@pytest.mark.parametrize("name", EVERY)
def test_a_metric_that_is_not_measured_is_refused(name, tmp_path):
    write_rows(name, tmp_path)
    with pytest.raises(ValueError, match=r"metric_for_best_model='charm' is not measured; give one of "):
        load(name).main([*FLAGS_OF[name], "--metric_for_best_model", "charm"])


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_fits_three_screens(name):
    """Less than 300 lines, and no function of more than 60."""
    source = (ROOT / "recipes" / f"{name}.py").read_text(encoding="utf-8")
    assert source.count("\n") < 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
