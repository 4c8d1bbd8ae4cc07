"""Advice, line by line, from the numbers of runs that are written by hand."""

import pytest

from hf_prune.report.evidence import Evidence
from hf_prune.report.topics import FIRST, Measured, advice_of, first

NONE = Evidence({})
FACTS = {
    "padding_causes": ["order"],
    "lengths": [10.0, 12.0, 20.0],
    "medians": [2.0, 0.6, 0.5],
    "at_once": 0.1,
    "upper": {"share": 0.0, "low": 0.0, "high": 0.0},
    "rows": 1000,
    "repeats": 0,
    "classes": {"count": 3, "smallest": 300, "largest": 400},
}


def curve(*values, metric="accuracy", losses=None, rows=1000):
    """Validations after each epoch, each of 100 positions."""
    losses = [1.0] * len(values) if losses is None else losses
    return [
        {"step": n, "epoch": float(n), "tokens": 100 * n, "rows": 10 * n, "seconds": n, f"eval_{metric}": value}
        | {"eval_loss": loss, "eval_runtime": 2.0, "eval_samples_per_second": rows / 2}
        for n, (value, loss) in enumerate(zip(values, losses, strict=True), 1)
    ]


def results(evaluations=None, facts=FACTS, padding=0.1, metric="accuracy", **more):
    totals = {"padded_tokens": 1000, "tokens": 900, "padding": padding} if padding is not None else {"padded_tokens": 0}
    quality = {"metric": metric, "greater_is_better": metric != "loss"}
    pruning = {"training_rows": 1000, "totals": totals, "evaluations": evaluations or curve(0.5, 0.9)}
    return {"quality": quality, "pruning": pruning, "facts": facts} | more


def told(topic, evidence=NONE, **given):
    return next(one for one in advice_of(Measured(results(**given)), evidence) if one.topic == topic)


def paid(topic, rule, *pays):
    entry = {"comparison": "digits", "arm": rule, "rule": rule, "rival": "short-50", "unit": "points", "saved": 0.5}
    entries = [entry | {"gain": 2.5, "low": 1, "high": 4, "seeds": 8, "pays": pay} for pay in pays]
    return Evidence({topic: entries})


# ---- Padding ----


def test_padding_names_the_flag_that_groups():
    found = told("padding", padding=0.48)
    assert (found.verdict, found.command) == ("act", "--train_sampling_strategy group_by_length")
    assert found.line == (
        "padding: 48 % of the computed positions were padding: try --train_sampling_strategy group_by_length "
        "(this is in no comparison yet: compare before you trust it)."
    )
    assert found.numbers["saves"] == pytest.approx(1 - 0.52 / 0.93)


def test_little_padding_and_none_are_left():
    assert told("padding", padding=0.15).line == (
        "padding: 15 % of the computed positions were padding: nothing to gain here."
    )
    assert told("padding", padding=None).line == "padding: inputs without tokens have no padding."


def test_padding_that_grouping_cannot_lower_gets_its_own_cure():
    found = told("padding", padding=0.5, facts=FACTS | {"padding_causes": ["width"]})
    assert found.verdict == "nothing" and "pad to the longest row of each batch" in found.line
    grouped = told("padding", padding=0.5, arguments={"train_sampling_strategy": "group_by_length"})
    assert grouped.verdict == "nothing" and "grouping by length, which is on" in grouped.line


def test_an_older_account_has_its_padding_counted():
    found = results(padding=0.1)
    del found["pruning"]["totals"]["padding"]
    found["pruning"]["totals"]["tokens"] = 520
    (line,) = [one.line for one in advice_of(Measured(found), NONE) if one.topic == "padding"]
    assert line.startswith("padding: 48 % of the computed positions were padding: try")


# ---- Epochs ----


def test_epochs_that_gained_less_than_the_margin():
    values = [10, 20, 28, 29.7, 29.9, 30.0, 29.8, 30.0]
    found = told("epochs", evaluations=curve(*values, metric="bleu"), metric="bleu")
    assert (found.verdict, found.command) == ("act", "--num_train_epochs 4")
    assert found.line.startswith(
        "epochs: the last 4 of 8 epochs gained 0.30 BLEU, no more than the noise of a validation (0.50), and no loss; "
        "4 cost 50 % less: try --num_train_epochs 4 ("
    )


def test_the_noise_of_an_accuracy_is_its_standard_error():
    """0.80 and 0.83 on 100 rows: one error is 4 points; on 100,000 rows the margin of half a point is more."""
    few = told("epochs", evaluations=curve(0.5, 0.80, 0.83, 0.83, rows=100))
    many = told("epochs", evaluations=curve(0.5, 0.80, 0.83, 0.83, rows=100_000))
    assert few.numbers["noise"] == pytest.approx(4.0) and few.command == "--num_train_epochs 2"
    assert many.numbers["noise"] == 0.5 and many.command == "--num_train_epochs 3"


def test_a_loss_that_still_falls_counts_as_gain():
    values, losses = [0.5, 0.9, 0.9, 0.9], [2, 1.5, 1.2, 1.0]
    found = told("epochs", evaluations=curve(*values, losses=losses))
    assert found.line == "epochs: the validation loss fell until the last epoch: fewer epochs would lose."
    assert told("epochs", evaluations=curve(*values)).command == "--num_train_epochs 2"


def test_a_metric_that_is_lower_when_better():
    found = told("epochs", evaluations=curve(3, 2, 1.995, 2.2, metric="loss", losses=[3, 2, 1.995, 2.2]), metric="loss")
    assert found.command == "--num_train_epochs 2" and found.numbers["gained"] == pytest.approx(0.005)


def test_validation_that_gains_to_the_end():
    found = told("epochs", evaluations=curve(10, 20, 30, metric="bleu"), metric="bleu")
    assert found.line == "epochs: validation gained more than 0.50 until the last epoch: fewer epochs would lose."


def test_epochs_are_unknown_without_two_validations():
    found = told("epochs", evaluations=curve(0.5))
    assert found.verdict == "unknown" and "add --eval_strategy epoch" in found.line


# ---- Rows ----


def test_a_second_component_is_told_with_its_interval():
    upper = {"share": 0.38, "low": 0.35, "high": 0.41}
    found = told("wrong labels", facts=FACTS | {"upper": upper, "accuracy": 0.8, "chance": 0.5})
    assert (found.verdict, found.command) == ("act", "--policy trim")
    assert found.line == (
        "wrong labels: 38 % of the rows (95 % interval 35 to 41) have losses apart from the others', as wrong labels "
        "or pairs have: try --policy trim (`trim` is in no comparison yet: compare before you trust it)."
    )


@pytest.mark.parametrize(
    ("topic", "rule", "facts", "flag"),
    [
        ("wrong labels", "trim", {"upper": {"share": 0.38, "low": 0.35, "high": 0.41}}, " --revisit 0"),
        ("easy rows", "kakurenbo", {"at_once": 0.9}, " --by_confidence True"),
        ("easy rows", "seta", {"at_once": 0.9}, ""),
    ],
)
def test_pairs_have_no_classes_so_a_rule_gets_the_flag_it_needs_without(topic, rule, facts, flag):
    found = told(topic, paid(topic, rule, True), facts=FACTS | facts)
    assert found.command == f"--policy {rule}{flag}"
    found = told(topic, paid(topic, rule, True), facts=FACTS | facts | {"accuracy": 0.8, "chance": 0.5})
    assert found.command == f"--policy {rule}"


def test_a_second_component_that_may_be_chance_is_not_known():
    found = told("wrong labels", facts=FACTS | {"upper": {"share": 0.37, "low": 0.0, "high": 0.41}})
    assert (found.verdict, found.command) == ("unknown", None)
    assert found.line == (
        "wrong labels: 37 % of the rows may have wrong labels, but the 95 % interval, 0 to 41 %, does not exclude that "
        "none has."
    )


def test_no_second_component():
    said = (
        "wrong labels: the losses don't fall into two groups, so wrong labels, if there are any, can't be told from "
        "hard rows: --policy trim{} --noise SHARE prunes as many as you know to be wrong."
    )
    assert told("wrong labels").line == said.format(" --revisit 0")  # it has no classes, so nothing tells what is right
    assert told("wrong labels", facts=FACTS | {"accuracy": 0.8, "chance": 0.5}).line == said.format("")


def test_wrong_labels_mean_nothing_before_the_model_has_learnt():
    upper = {"share": 0.38, "low": 0.35, "high": 0.41}
    found = told("wrong labels", facts=FACTS | {"upper": upper, "medians": [2.2, 2.0, 1.9]})
    assert found.verdict == "unknown" and found.line == (
        "wrong labels: no estimate of wrong labels is meaningful yet, for the median loss only went from 2.2 to 1.9 "
        "nats: train longer, until the model knows most of its rows."
    )


@pytest.mark.parametrize("lost", [None, float("nan"), float("inf")])
def test_a_run_that_has_diverged_gets_advice_too(lost):
    found = told("wrong labels", facts=FACTS | {"medians": [lost, lost]})
    assert found.line == "wrong labels: no epoch had losses that are numbers: the run has diverged."
    assert told("wrong labels", facts=FACTS | {"medians": [2.0, 0.6, 0.5, lost]}).numbers["share"] == 0


def test_equal_rows():
    found = told("duplicates", facts=FACTS | {"repeats": 300})
    assert found.command == "--policy one_of_each" and found.numbers["saves"] == 0.3
    assert told("duplicates").verdict == "nothing"
    unread = {name: value for name, value in FACTS.items() if name != "repeats"}
    assert "they were not looked for: hf-prune advise RUN --data" in told("duplicates", facts=unread).line


def test_imbalance():
    classes = {"count": 10, "smallest": 10, "largest": 1000, "learnt": 0.9, "learnt_of_small": 0.3}
    found = told("imbalance", facts=FACTS | {"classes": classes})
    assert found.line.startswith(
        "imbalance: 10 classes have 10 to 1,000 rows; of the rarest quarter of classes 30 % of the rows are learnt, of "
        "all 90 %: try --class_weights balanced ("
    )
    assert told("imbalance").verdict == "nothing"
    without = {name: value for name, value in FACTS.items() if name != "classes"}
    assert told("imbalance", facts=without).line == "imbalance: the rows have no classes in a column label or labels."


def test_rows_learnt_at_once():
    found = told("easy rows", facts=FACTS | {"at_once": 0.6})
    assert found.line.startswith(
        "easy rows: 60 % of the rows were learnt in the first epoch and never lost: try --policy infobatch ("
    )
    assert told("easy rows").verdict == "nothing"
    assert told("easy rows", facts=FACTS | {"at_once": 0.6}, metric="pearson").verdict == "nothing"


def test_lengths_matter_while_validation_gains():
    facts = FACTS | {"lengths": [5.0, 12.0, 40.0]}
    found = told("lengths", facts=facts)
    assert found.command == "--policy competence" and "80 % of the rows have 5 to 40 tokens (median 12)" in found.line
    assert told("lengths", facts=facts, evaluations=curve(0.5, 0.9, 0.9)).verdict == "nothing"
    assert told("lengths").verdict == "nothing"


# ---- All of it ----


def test_what_never_paid_is_nothing_to_gain():
    facts = FACTS | {"at_once": 0.6}
    never = told("easy rows", paid("easy rows", "infobatch", False, False), facts=facts)
    assert never.verdict == "nothing" and never.line.endswith(
        "never lost: nothing to gain (`infobatch` was better than fewer epochs in 0 of 2 measurements; "
        "recipes/results/digits/comparison.md)."
    )
    once = told("easy rows", paid("easy rows", "seta", True, False), facts=facts)
    assert (once.verdict, once.command) == ("act", "--policy seta")
    assert once.gained == "`seta` was better than fewer epochs in 1 of 2 measurements, by 2.5 points on digits"


def test_the_largest_saving_comes_first():
    facts = FACTS | {"repeats": 300, "upper": {"share": 0.2, "low": 0.1, "high": 0.3}}
    found = advice_of(Measured(results(padding=0.48, facts=facts)), NONE)
    assert [one.topic for one in found[:3]] == ["padding", "duplicates", "wrong labels"]
    assert [one.topic for one in first(found, ["padding"])][:2] == ["duplicates", "wrong labels"]
    assert len(first(found)) == FIRST


def test_a_run_without_facts_says_how_to_get_them():
    found = {one.topic: one for one in advice_of(Measured(results(facts=None)), NONE)}
    for topic in ("wrong labels", "easy rows", "lengths"):
        assert found[topic].verdict == "unknown"
        assert found[topic].line.endswith("train two epochs or more with --policy uniform --keep 1.")


def test_a_run_without_a_policy_knows_its_epochs():
    found = {one.topic: one for one in advice_of(Measured({"evaluations": curve(0.5, 0.9, 0.9, 0.9)}), NONE)}
    assert found["epochs"].command == "--num_train_epochs 2"
    assert {one.verdict for one in found.values() if one.topic != "epochs"} == {"unknown"}
