"""Rows scored by forward passes: the losses by hand, a kill at any part, and what is refused."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from tiny import TASKS, Net
from torch.nn import functional as F

from hf_prune import History, PruningTrainer
from hf_prune.common.command import stage
from hf_prune.train import scoring


@pytest.fixture
def subject(make):
    """A trainer of 22 rows whose model has dropout."""
    return make(None, model=TASKS["one label"].model(0.5))


def by_hand(trainer):
    """(22,) losses, whether the largest logit is that of the label, and the label's probability."""
    model = trainer.model.eval()
    found = []
    with torch.no_grad():
        for row in trainer.train_dataset:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            loss = F.cross_entropy(logits, torch.tensor(row["labels"])).item()
            found.append((loss, logits.argmax().item() == row["labels"], np.exp(-loss)))
    model.train()
    return np.array(found).T


def assert_same(one, other):
    for name, array in other.arrays().items():
        np.testing.assert_allclose(one.arrays()[name], array, rtol=1e-5, err_msg=name)


def parts(folder):
    return sorted((folder / "_scored").glob("part-*"))


def interrupted_after(monkeypatch, count):
    """Let scoring measure `count` parts of one batch, and fail then; the rows that it measured."""
    measured, stock = [], scoring.rescore

    def limited(trainer, training, rows, *args):
        if len(measured) == count:
            raise KeyboardInterrupt
        measured.append(rows.tolist())
        return stock(trainer, training, rows, *args)

    monkeypatch.setattr(scoring, "_BATCHES", 1)
    monkeypatch.setattr(scoring, "rescore", limited)
    return measured


def test_losses_are_those_of_the_model_as_it_is(subject):
    history = subject.score_rows()
    loss, correct, confidence = by_hand(subject)
    np.testing.assert_allclose(history.loss, loss, rtol=1e-5)
    np.testing.assert_array_equal(history.signals["correct"], correct)
    np.testing.assert_allclose(history.signals["confidence"], confidence, rtol=1e-5)
    assert (history.last_round == 0).all()
    assert history.tokens.tolist() == [len(row["input_ids"]) for row in subject.train_dataset]
    cost = history.facts["cost"]
    assert (cost["runs"], cost["rows"]) == (1, 22) and cost["seconds"] > 0
    assert cost["tokens"] >= history.tokens.sum()


@pytest.mark.parametrize("task", ["llama", "bart"])
def test_the_loss_of_a_text_is_the_mean_over_its_targets(make, task):
    subject = make(None, model=TASKS[task].model(0.0), rows=TASKS[task].rows())
    history = subject.score_rows()
    with torch.no_grad():
        for row, loss in zip(subject.train_dataset, history.loss, strict=True):
            inputs = {name: torch.tensor([values]) for name, values in row.items()}
            assert subject.model.eval()(**inputs).loss.item() == pytest.approx(loss, rel=1e-4)


def test_nothing_of_the_trainer_changes_and_it_can_train(make):
    runs = []
    for scores in (False, True):
        torch.manual_seed(0)
        subject = make("uniform:keep=1", model=TASKS["one label"].model(0.5))
        if scores:
            before = [tensor.clone() for tensor in subject.model.state_dict().values()]
            subject.score_rows()
            after = subject.model.state_dict().values()
            assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
            assert subject.model.training and subject.history is None
        subject.train()
        runs.append(subject)
    for one, other in zip(*(run.model.state_dict().values() for run in runs), strict=True):
        assert torch.equal(one, other)
    trained = runs[1].score_rows()  # after training it measures the trained model
    np.testing.assert_allclose(trained.loss, by_hand(runs[1])[0], rtol=1e-4)


def test_a_killed_call_goes_on_with_the_rows_that_are_left(subject, tmp_path, monkeypatch):
    whole = subject.score_rows()
    folder, measured = tmp_path / "scores", interrupted_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        subject.score_rows(folder)
    assert len(parts(folder)) == 3 and not (folder / "history.safetensors").exists()
    first = sum(measured, [])
    measured.clear()
    monkeypatch.setattr(scoring, "_BATCHES", 2)  # as on another number of processes
    with monkeypatch.context() as patch:
        rest = interrupted_after(patch, 99)
        patch.setattr(scoring, "_BATCHES", 2)
        history = subject.score_rows(folder)
    assert sorted(first + sum(rest, [])) == list(range(22)) and len(first) == 12
    assert_same(history, whole)
    assert history.facts["cost"]["rows"] == 22 and not parts(folder)
    assert_same(History.load(folder / "history.safetensors"), whole)


def test_parts_of_another_model_or_damaged_ones_are_measured_again(subject, tmp_path, monkeypatch):
    folder = tmp_path / "scores"
    for spoil in ("model", "file"):
        with monkeypatch.context() as patch:
            interrupted_after(patch, 3)
            with pytest.raises(KeyboardInterrupt):
                subject.score_rows(folder)
        assert len(parts(folder)) == 3
        if spoil == "model":
            with torch.no_grad():
                subject.model.classifier.bias[0] += 1
        else:
            parts(folder)[0].write_bytes(parts(folder)[0].read_bytes()[:-9])
        with monkeypatch.context() as patch:
            measured = interrupted_after(patch, 99)
            history = subject.score_rows(folder)
        assert sum(map(len, measured)) == (22 if spoil == "model" else 14)
        np.testing.assert_allclose(history.loss, by_hand(subject)[0], rtol=1e-5)
        (folder / "history.safetensors").unlink()


def test_a_call_that_has_ended_is_read_again_and_another_model_is_refused(subject, tmp_path, monkeypatch):
    history = subject.score_rows(tmp_path / "scores")
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "rescore", pytest.fail)
        assert_same(subject.score_rows(tmp_path / "scores"), history)
    with torch.no_grad():
        subject.model.classifier.bias[0] += 1
    with pytest.raises(ValueError, match="scores holds a History of another model or of other rows; give another"):
        subject.score_rows(tmp_path / "scores")


def test_rows_go_by_their_names_and_to_the_table(make, tmp_path):
    rows = TASKS["one label"].rows()
    named = Dataset.from_list([row | {"file_row": 100 + i, "id": f"r{i}"} for i, row in enumerate(rows)])
    subject = make("uniform", rows=named, history_key="id")
    history = subject.score_rows(tmp_path / "scores")
    assert history.facts["key"] == "id" and len(history.keys) == 22 and history.facts["data"] is not None
    np.testing.assert_allclose(history.loss, make(None, rows=rows).score_rows().loss, rtol=1e-4)
    table = pq.read_table(tmp_path / "scores" / "history.parquet").to_pydict()
    np.testing.assert_allclose(table["loss"], history.loss)
    assert table["file_row"] == list(range(100, 122)) and len(table["confidence"]) == 22
    ours = make("rho_loss", rows=named.select([5, 3, 1]), history=tmp_path / "scores", history_key="id")
    ours.train()
    np.testing.assert_array_equal(ours.history.notes["reference"], history.loss[[5, 3, 1]])


def test_batches_of_rows_of_like_length_need_little_padding(make):
    rows = TASKS["llama"].rows(40)
    model = TASKS["llama"].model(0.0)
    arrow = make(None, model=model, rows=Dataset.from_list(rows)).score_rows()
    plain = make(None, model=model, rows=rows).score_rows()
    np.testing.assert_allclose(arrow.loss, plain.loss, rtol=1e-4)
    assert arrow.facts["cost"]["tokens"] < 0.9 * plain.facts["cost"]["tokens"]


def test_a_model_whose_losses_cannot_be_read_needs_a_function(make):
    with pytest.raises(ValueError, match=r"can't read the losses of the rows of Net\. .* Give example_loss_func"):
        make(None, model=Net(tuple)).score_rows()


def test_own_losses_are_measured(make):
    subject = make("uniform", example_loss_func=lambda outputs, inputs: inputs["labels"].float())
    history = subject.score_rows()
    assert history.loss.tolist() == [row["labels"] for row in subject.train_dataset] and not history.signals


@pytest.mark.parametrize("rows", [None, [], {"a": [1]}])
def test_rows_without_numbers_are_refused(make, rows):
    subject = make(None)
    subject.train_dataset = rows
    with pytest.raises(ValueError, match=r"score_rows\(\) measures rows by number, but train_dataset is a"):
        subject.score_rows()


def test_a_script_that_is_run_for_scores_ends_where_it_would_train(make, monkeypatch):
    monkeypatch.setattr(stage, "scores", "hf-prune score --model x -- train.py")
    for policy in (None, "infobatch"):
        subject = make(policy)
        with pytest.raises(SystemExit) as end:
            subject.train()
        assert end.value.code is None and subject.state.global_step == 0
    assert History.load(f"{subject.args.output_dir}/history.safetensors", rows=22).loss.min() > 0
    assert type(subject) is PruningTrainer
