"""The contract: what every file in hf_prune/policies must do, found by walking the folder."""

import dataclasses
import inspect
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from budgets import HALVES, spelled
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import matrix_of

import hf_prune.policies as registry
from hf_prune import Clock, History, Policy
from hf_prune.core.features import Features
from hf_prune.core.ranking import marked
from hf_prune.policies import uniform

LOSSES = st.lists(
    st.sampled_from([np.nan, 0.0, 0.5, 0.5, 1.0, 3.0, 1e30]) | st.floats(0, 10, width=32), min_size=1, max_size=200
)


@pytest.fixture(params=registry.names())
def name(request):
    return request.param


DATA_NEEDS = {"tokens", "features", "classes", "columns", "groups"}


def begun(policy, n):
    """The history with which a run of `policy` on `n` rows begins, after a run that measured everything."""
    rng = np.random.default_rng(0)
    history = History.empty(n, policy.needs - DATA_NEEDS)
    history.tokens[:] = rng.integers(1, 50, n)
    texts = tuple(matrix_of([rng.integers(0, 30, length) for length in history.tokens]) for _ in range(2))
    history.features = Features(
        texts if "features" in policy.needs else (),
        classes=rng.integers(0, 3, n),
        columns={column: np.arange(n) % 3 != 1 for column in policy.reads_columns},
        groups=rng.integers(0, 1 + n // 2, n),
    )
    earlier = History.empty(n, ("correct", "confidence", "el2n", "grad_norm", "base_loss"))
    earlier.notes = {"score": rng.random(n, np.float32)}
    loss, *signals = rng.random((6, n), np.float32)
    earlier.record(np.arange(n), loss, 0, **dict(zip(earlier.signals, signals, strict=True)))
    policy.begin(history, earlier)
    return history


def history_of(policy, losses):
    losses = np.asarray(losses, np.float32)
    n, rng = len(losses), np.random.default_rng(0)
    history = begun(policy, n)
    unseen = np.isnan(losses)
    history.loss[unseen], history.last_round[unseen] = np.nan, -1
    signals = {signal: rng.random(n).astype(np.float32) for signal in history.signals}
    history.record(np.arange(n), losses, 0, **signals)
    return history


def clock_of(policy, epoch, step_rows=1):
    rounds = policy.rounds_per_epoch
    return Clock(epoch * rounds, epoch, 10, epoch / 10, step_rows, rounds)


def copy_of(history):
    return {key: array.copy() for key, array in history.arrays().items()}


@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, epoch=st.integers(0, 9), seed=st.integers(0, 2**31), step_rows=st.integers(1, 16))
@pytest.mark.parametrize("policy", registry.names())
def test_select_is_valid_pure_and_repeatable(policy, losses, epoch, seed, step_rows):
    policy = registry.make(spelled(policy))
    history, clock = history_of(policy, losses), clock_of(policy, epoch, step_rows)
    if clock.rounds > 1:
        history.offered = np.flatnonzero(np.random.default_rng(seed).random(len(losses)) < 0.5)
        history.offered = history.offered if len(history.offered) else np.zeros(1, np.int64)
    if epoch > 0:
        policy.update(history, clock_of(policy, epoch - 1, step_rows), np.random.default_rng(seed))
    before = copy_of(history)
    first = policy.select(history, clock, np.random.default_rng(seed)).check(len(losses), history.offered)
    again = policy.select(history, clock, np.random.default_rng(seed))
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.weights, again.weights)
    np.testing.assert_array_equal(first.rescore, again.rescore)
    assert policy.weighs or first.weights is None
    for key, array in history.arrays().items():
        np.testing.assert_array_equal(array, before[key], err_msg=f"select changed {key}")
    assert 1 <= policy.forecast(history, clock) <= len(losses)


@settings(max_examples=20, deadline=None)
@given(losses=LOSSES, seed=st.integers(0, 2**31))
@pytest.mark.parametrize("policy", registry.names())
def test_a_saved_history_gives_the_same_next_selection(policy, losses, seed, tmp_path_factory):
    policy = registry.make(spelled(policy))
    history = history_of(policy, losses)
    policy.update(history, clock_of(policy, 0), np.random.default_rng(seed))
    path = tmp_path_factory.mktemp("history") / "file"
    history.save(path)
    loaded = History.load(path)
    loaded.features = history.features
    following = clock_of(policy, 1)
    here = policy.select(history, following, np.random.default_rng(seed))
    there = policy.select(loaded, following, np.random.default_rng(seed))
    np.testing.assert_array_equal(here.rows, there.rows)
    np.testing.assert_array_equal(here.weights, there.weights)


@settings(max_examples=30, deadline=None)
@given(given_up=st.lists(st.booleans(), min_size=1, max_size=60), seed=st.integers(0, 2**31), step=st.integers(1, 16))
@pytest.mark.parametrize("budget", HALVES)
def test_a_budget_takes_a_row_that_is_given_up_after_all_others(budget, given_up, seed, step):
    policy, given_up, rng = registry.make(HALVES[budget]), np.array(given_up), np.random.default_rng(seed)
    history, n = begun(policy, len(given_up)), len(given_up)
    history.loss[given_up], history.last_round[given_up] = np.nan, -1
    for round in range(3):
        signals = {signal: rng.random(n, np.float32) for signal in history.signals}
        losses = np.where(given_up, np.float32(np.nan), rng.random(n, np.float32))
        history.record(np.arange(n), losses, round, **signals)
        policy.update(history, clock_of(policy, round, step), rng)
    assert (history.never_finite == given_up).all()
    kept = marked(policy.select(history, clock_of(policy, 3, step), rng).check(n).rows, n)
    assert kept[~given_up].all() or not kept[given_up].any()


def test_nothing_known_and_one_row(name):
    policy = registry.make(spelled(name))
    for n in (1, 7):
        history = begun(policy, n)
        history.loss[:], history.last_round[:] = np.nan, -1
        policy.select(history, clock_of(policy, 0), np.random.default_rng(0)).check(n)


def test_no_global_randomness_is_drawn(name):
    policy = registry.make(spelled(name))
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what must stay
    history = history_of(policy, [0.1, 0.2, 5.0])
    policy.update(history, clock_of(policy, 0), np.random.default_rng(0))
    policy.select(history, clock_of(policy, 1), np.random.default_rng(0))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_objects_are_frozen_picklable_and_spelled_by_their_repr(name):
    policy = registry.find(name)()
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert eval(repr(policy), {type(policy).__name__: type(policy)}) == policy
    for field in dataclasses.fields(policy):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, field.name, None)


def test_the_card_says_everything(name):
    card = registry.card_of(registry.find(name))
    assert tuple(card.entries) == registry.HEADINGS
    assert card.title and card.method and all(card.entries.values())
    assert len(card.text.splitlines()) <= 25


def test_the_parts_of_a_card_are_its_text(name):
    card = registry.cards()[name]
    parts = [card.title, card.method, *(part for entry in card.entries.items() for part in entry)]
    assert " ".join(parts).split() == card.text.split()


def test_every_field_is_explained(name):
    policy = registry.find(name)
    arguments = policy.__doc__.partition("Args:")[2]
    assert [
        f.name for f in dataclasses.fields(policy) if not re.search(rf"^\s+{f.name}: ", arguments, re.MULTILINE)
    ] == []


def test_a_file_is_short_and_has_its_golden_test(name):
    source = Path(inspect.getfile(registry.find(name)))
    assert len(source.read_text().splitlines()) <= 150
    assert (Path(__file__).parent / f"test_{name}.py").exists()


# ---- Names ----


def test_names_with_fields_become_objects():
    assert registry.make("uniform:keep=0.25, unit=tokens") == uniform.Uniform(keep=0.25, unit="tokens")
    assert registry.make("infobatch") == registry.find("infobatch")()
    assert registry.make(None) is None
    policy = uniform.Uniform()
    assert registry.make(policy) is policy


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        ("infobach", ValueError, "Unknown policy 'infobach'. Did you mean 'infobatch'"),
        ("nothing_like_it", ValueError, "Available: .*uniform"),
        ("uniform:ratio=0.3", ValueError, "'ratio=0.3' is not a setting of uniform, which takes keep=..., unit=..."),
        ("uniform:keep", ValueError, "'keep' is not a setting"),
        ("uniform:keep=2", ValueError, r"Uniform\(keep=...\) must be in \(0, 1\], got 2"),
        ("uniform:keep=half", ValueError, r"Uniform\(keep=...\)"),
        ("autoassist:rounds=2.5", ValueError, r"AutoAssist\(rounds=...\) must be a whole number, got 2.5"),
        ("no.such.module", ValueError, "there is no module 'no'"),
        ("hf_prune.core.Clock", ValueError, "hf_prune.core has no policy called 'Clock'"),
        ("hf_prune.core", ValueError, "must define exactly one policy, but defines none"),
        (3, TypeError, "must be a Policy object"),
    ],
)
def test_a_bad_name_says_what_to_write(policy, error, message):
    with pytest.raises(error, match=message):
        registry.make(policy)


def test_a_module_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hardest.py").write_text(
        "from dataclasses import dataclass\nimport numpy as np\nfrom hf_prune import Policy, Selection\n\n"
        "@dataclass(frozen=True)\nclass Hardest(Policy):\n    first: int = 3\n\n"
        "    def select(self, history, clock, rng):\n        return Selection(np.argsort(-history.loss)[:3])\n"
    )
    (tmp_path / "broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    policy = registry.make("mine.hardest:first=2")
    assert isinstance(policy, Policy)
    assert policy.first == 2
    assert registry.make("mine.hardest.Hardest") == sys.modules["mine.hardest"].Hardest()
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        registry.make("broken.Anything")


def test_a_module_without_a_card_is_told_by_the_class(tmp_path, monkeypatch):
    (tmp_path / "plain_rule.py").write_text(
        'from hf_prune.policies.uniform import Uniform\n\nclass Mine(Uniform):\n    """Mine: all rows.\n\n    Why."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    card = registry.card_of(registry.find("plain_rule.Mine"))
    assert card == registry.Card(text="Mine: all rows.\n\nWhy.", title="Mine: all rows.", method="Why.", entries={})


def test_classes_go_by_their_names():
    classes = [registry.find(name) for name in registry.names()]
    assert [getattr(registry, cls.__name__) for cls in classes] == classes
    with pytest.raises(AttributeError, match="InfoBtach"):
        registry.InfoBtach  # noqa: B018


def test_a_class_in_place_of_an_object_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"Make an object of it: add \(\)"):
        registry.make(registry.find("infobatch"))  # pyright: ignore[reportArgumentType]


def test_a_setting_that_is_given_twice_is_refused():
    with pytest.raises(ValueError, match="ratio is given twice"):
        registry.make("infobatch:ratio=0.3,ratio=0.4")
