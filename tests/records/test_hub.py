"""The real client against a Hub on this machine: what is pushed, what comes back, and what happens when it fails."""

import io
import json
import os
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import inside
import numpy as np
import pytest
from hub_server import Fault, HubServer, Repository
from recipe_runs import run, write_rows
from tiny import TASKS, trainer
from transformers import TrainerCallback

from hf_prune import History

TOKEN = "hf_thisMustNotBeSeenAnywhere"
TASK = TASKS["one label"]
POLICY = "uniform:keep=0.5"
ACCOUNT = {"history.safetensors", "history.parquet", "pruning.json", "README.md"}
OF_STOCK = ("training_args.bin", "trainer_state.json")  # name output_dir
WEIGHTS = {"config.json", "model.safetensors", "training_args.bin"}


# ---- What runs in the client's process, whose environment names the Hub on this machine ----


def begin(log: str):
    """Send all that the process says to a file."""
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)


def rows_of(n=22):
    return [{**row, "id": f"row {i}"} for i, row in enumerate(TASK.rows(n))]


class Waits(TrainerCallback):
    """Lets each upload end before training goes on: stock leaves out the next one else."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_save(self, *args, **kwargs):
        self.trainer._finish_current_push()


def train(folder, again=0, policy=POLICY, rows=22, history=None, metrics=None, **settings):
    """Train, save and, with `push_to_hub`, push; what it knew of its rows when it began.

    Args:
        folder: The `output_dir`.
        again: Further calls of `push_to_hub`.
        policy: The policy.
        rows: Rows of the training set.
        history: As the trainer takes it.
        metrics: Final scores.
        **settings: Training arguments.
    """
    made = trainer(
        folder,
        TASK.model(),
        rows_of(rows),
        policy,
        eval_dataset=TASK.rows(8),
        history=history,
        history_key="id",
        hub_token=TOKEN,
        **{"num_train_epochs": 2, "eval_strategy": "epoch"} | settings,
    )
    made.add_callback(Waits(made))
    began_with = inside.begun(made).loss
    made.train()
    made.save_model()
    for _ in range(again):
        made.push_to_hub(
            tasks="text-classification", dataset=os.path.join(folder, "beans.csv"), metrics=metrics, split="test"
        )
    return made.history.loss, began_with


def push(history, repo_id, **options):
    return history.push_to_hub(repo_id, **options)


def pull(source, **options):
    return History.from_pretrained(source, **options)


# ---- ----


class Client:
    """Calls functions in a process that talks to a Hub."""

    def __init__(self, pool: ProcessPoolExecutor, log: Path, settings: dict[str, str]):
        self._pool, self.log, self.settings = pool, log, settings

    def __call__(self, function, *args, **settings):
        return self._pool.submit(function, *args, **settings).result()


@pytest.fixture(scope="module")
def hub():
    with HubServer(TOKEN, owners=("ann", "lab")) as server:
        yield server


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("HF_TOKEN", raising=False)
        pool = ProcessPoolExecutor(1, get_context("spawn"), begin, (str(home / "log"),))
        pool.submit(int).result()  # begins with this environment
    with pool:
        yield Client(pool, home / "log", settings)


@pytest.fixture(autouse=True)
def new(hub):
    """An empty Hub, without faults, for each test."""
    hub.repositories, hub.objects, hub.faults, hub.calls, hub.received = {}, {}, [], [], []


@pytest.fixture
def history():
    made = History.empty(5, ("correct",))
    made.record(np.array([0, 2, 3]), np.array([0.5, 1.5, 2.5], np.float32), 1, correct=np.ones(3, np.float32))
    made.tokens[:] = [3, 4, 5, 6, 7]
    made.keys = np.arange(5, dtype=np.uint64) + 2**63
    cost = {"runs": 1, "rows": 10, "tokens": 1234, "seconds": 5.0}
    made.facts = {"policy": "InfoBatch(ratio=0.5, anneal=0.875)", "data": 77, "key": "id", "cost": cost}
    return made


def same(one: History, other: History) -> bool:
    equal = [np.array_equal(array, other.arrays()[name], equal_nan=True) for name, array in one.arrays().items()]
    return all(equal) and one.arrays().keys() == other.arrays().keys() and np.array_equal(one.keys, other.keys)


def card_of(files):
    from huggingface_hub import ModelCard

    return ModelCard(files["README.md"].decode())


# ---- A History by itself ----


@pytest.mark.slow
def test_a_history_goes_there_and_comes_back(hub, client, history):
    url = client(push, history, "lab/losses", private=True, token=TOKEN)
    repository = hub.dataset("lab/losses")
    assert repository.private and repository.messages == ["Upload History"]
    assert url == f"{hub.address}/datasets/lab/losses/commit/{repository.sha()}"
    assert set(repository.files) == {"history.safetensors", "history.parquet", "README.md"}
    back = client(pull, "lab/losses", token=TOKEN)
    assert same(history, back) and back.facts == history.facts


def test_its_data_set_can_be_looked_at(hub, client, history):
    from huggingface_hub import DatasetCard
    from pyarrow import parquet

    client(push, history, "ann/losses", token=TOKEN)
    files = hub.dataset("ann/losses").files
    table = parquet.read_table(io.BytesIO(files["history.parquet"])).to_pydict()
    assert table["row"] == [0, 1, 2, 3, 4] and table["key"] == history.keys.tolist()
    assert table["loss"] == [0.5, None, 1.5, 2.5, None] and table["correct"] == [1, None, 1, 1, None]
    card = DatasetCard(files["README.md"].decode())
    assert card.data.configs == [{"config_name": "default", "data_files": "history.parquet"}]
    assert "hf_prune" in card.data.tags
    for text in (
        "policy: `InfoBatch(ratio=0.5, anneal=0.875)`",
        "fingerprint of the training set: 77",
        "cost: 1 run, 1,234 positions, padding included, 5.0 seconds",
        'history="ann/losses"',
        'history_key="id"',
        *(f"| `{column}` |" for column in table),
    ):
        assert text in card.text


def test_a_history_that_nothing_is_known_of_says_so(hub, client):
    client(push, History.empty(3), "ann/empty", token=TOKEN)
    text = hub.dataset("ann/empty").files["README.md"].decode()
    assert all(f"- {what}: not known" in text for what in ("policy", "cost")) and "- key column: none" in text


def test_the_same_again_sends_nothing_again(hub, client, history):
    client(push, history, "ann/losses", token=TOKEN)
    hub.calls.clear()
    client(push, history, "ann/losses", token=TOKEN)
    assert not [call for call in hub.calls if call.startswith("PUT")]
    assert client(pull, "ann/losses", token=TOKEN).facts == history.facts


def test_an_upload_that_breaks_off_leaves_nothing_half_and_goes_on(hub, client, history):
    hub.faults = [Fault("PUT", 0), Fault("PUT", 403)]  # the client tries the first again by itself
    with pytest.raises(Exception, match="Error while uploading|403"):
        client(push, history, "ann/losses", token=TOKEN)
    assert hub.dataset("ann/losses").commits == []
    arrived = len(hub.objects)
    client(push, history, "ann/losses", token=TOKEN)
    assert len(hub.dataset("ann/losses").commits) == 1 and len(hub.objects) == 2 >= arrived
    assert same(history, client(pull, "ann/losses", token=TOKEN))


def test_a_fault_of_the_hub_that_passes_is_waited_for(hub, client, history):
    hub.faults = [Fault("preupload", 500), Fault("objects/batch", 503)]
    client(push, history, "ann/losses", token=TOKEN)
    assert len(hub.dataset("ann/losses").commits) == 1


@pytest.mark.parametrize(
    ("repo_id", "token", "status"),
    [("foe/losses", TOKEN, 403), ("ann/losses", "hf_wrong", 401), ("ann/losses", False, 401)],
)
def test_a_push_without_the_right_is_refused(hub, client, history, repo_id, token, status):
    with pytest.raises(Exception, match=str(status)):
        client(push, history, repo_id, token=token)
    assert hub.repositories == {}


def test_a_data_set_of_other_things_keeps_its_card(hub, client, history):
    put(hub, "dataset", "ann/beans", {"README.md": b"# Beans", "train.csv": b"a"})
    with pytest.raises(ValueError, match="repo_id='ann/beans' is a data set .* such as ann/beans-history"):
        client(push, history, "ann/beans", token=TOKEN)
    assert hub.repositories["dataset", "ann/beans"].files == {"README.md": b"# Beans", "train.csv": b"a"}


# ---- Where a History is found ----


def put(hub, kind, name, files, private=False):
    hub.repositories[kind, name] = Repository(private, [("first", files)])


@pytest.fixture
def file(history, tmp_path):
    history.save(tmp_path / "history.safetensors")
    return (tmp_path / "history.safetensors").read_bytes()


def test_a_model_goes_before_a_data_set(hub, client, history, file, tmp_path):
    other = History.empty(2)
    other.save(tmp_path / "other")
    put(hub, "model", "ann/both", {"history.safetensors": file})
    put(hub, "dataset", "ann/both", {"history.safetensors": (tmp_path / "other").read_bytes()})
    assert len(client(pull, "ann/both")) == 5
    assert len(client(pull, "ann/both", repo_type="dataset")) == 2


def test_a_data_set_is_found_beside_a_model_without_a_history(hub, client, file):
    put(hub, "model", "ann/mixed", {"config.json": b"{}"})
    put(hub, "dataset", "ann/mixed", {"history.safetensors": file})
    assert len(client(pull, "ann/mixed")) == 5


def test_a_revision_is_kept_to_and_the_second_time_nothing_is_sent(hub, client, file):
    put(hub, "model", "ann/model", {"history.safetensors": file})
    sha = hub.model("ann/model").sha()
    hub.model("ann/model").commits.append(("second", {}))
    assert len(client(pull, "ann/model", revision=sha)) == 5
    hub.calls.clear()
    assert len(client(pull, "ann/model", revision=sha)) == 5
    assert hub.calls == []  # it lies in the cache
    with pytest.raises(ValueError, match="EntryNotFound"):
        client(pull, "ann/model")


def test_what_can_not_be_had_is_told_with_the_cure(hub, client, file):
    put(hub, "model", "ann/secret", {"history.safetensors": file}, private=True)
    for source, options, reason in (
        ("ann/none", {"token": TOKEN}, "RepositoryNotFoundError"),
        ("ann/secret", {"token": False}, "RepositoryNotFoundError"),
        ("ann/secret", {"token": TOKEN, "revision": "v2"}, "RevisionNotFoundError"),
    ):
        with pytest.raises(
            ValueError, match=f"(?s)history='{source}': there is no such folder here.*{reason}"
        ) as caught:
            client(pull, source, **options)
        assert "log in with `hf auth login`" in str(caught.value) and TOKEN not in str(caught.value)
    hub.faults = [Fault("HEAD", 403, times=2)]
    with pytest.raises(ValueError, match="history='ann/secret'.*Check the name, the revision and the connection"):
        client(pull, "ann/secret", token=TOKEN)


def test_a_damaged_file_of_the_hub_is_refused(hub, client, file, tmp_path):
    put(hub, "model", "ann/broken", {"history.safetensors": file[:-1] + b"\x77"})
    with pytest.raises(ValueError, match="history='ann/broken': .* is damaged.*Give another copy"):
        client(train, str(tmp_path / "run"), history="ann/broken")


@pytest.mark.parametrize("source", ["a/b/c", "nowhere", "/no/where", "./a"])
def test_what_is_no_name_of_a_repository_is_a_path(hub, client, source):
    with pytest.raises(ValueError, match=f"history='{re.escape(source)}': there is no .*Name a folder"):
        client(pull, source)
    assert hub.calls == []


def test_a_folder_without_a_history_is_refused_whatever_the_hub_has(tmp_path, monkeypatch):
    (tmp_path / "ann" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no ann/model/history.safetensors"):
        History.from_pretrained("ann/model")


# ---- A trainer ----


def test_a_run_is_pushed_and_another_begins_with_it(hub, client, tmp_path):
    """The whole way: train, push to an organisation, and begin from there on a part of the rows in another order."""
    settings = {"push_to_hub": True, "hub_model_id": "lab/tiny", "hub_private_repo": True}
    losses, began_with = client(train, str(tmp_path / "first"), 1, metrics={"accuracy": 0.5}, **settings)
    assert np.isnan(began_with).all()
    repository = hub.model("lab/tiny")
    assert repository.private and set(repository.files) == WEIGHTS | ACCOUNT

    card = card_of(repository.files)
    assert {"hf_prune", "uniform", "generated_from_trainer"} <= set(card.data.tags)
    (score,) = card.data.eval_results
    assert (score.task_type, score.dataset_type, score.dataset_split) == ("text-classification", "beans.csv", "test")
    assert (score.metric_type, score.metric_value) == ("accuracy", 0.5)
    assert card.text.count("## Data pruning") == card.text.count("### Baselines") == 1
    for text in (
        "The budget was 50 % of the rows",
        "None was run beside this",
        "### How to reproduce",
        "policy=Uniform(keep=0.5",
    ):
        assert text in card.text
    assert "Prune/" not in card.text  # stock takes every number beside an evaluation for a score

    account = json.loads(repository.files["pruning.json"])
    assert account["totals"]["rows"] == 24
    back = client(pull, "lab/tiny", token=TOKEN)
    np.testing.assert_array_equal(back.loss, losses)

    put(hub, "model", "ann/open", repository.files)
    _, began_with = client(train, str(tmp_path / "second"), policy="infobatch", rows=12, history="ann/open")
    np.testing.assert_array_equal(began_with, losses[:12])


def test_a_history_of_other_data_is_refused_by_the_trainer(hub, client, file, tmp_path):
    put(hub, "model", "ann/other", {"history.safetensors": file})
    with pytest.raises(ValueError, match="history='ann/other' has none of the 22 rows"):
        client(train, str(tmp_path), history="ann/other")


@pytest.mark.parametrize(
    ("strategy", "pushes", "more"),
    [
        ("end", 0, set()),
        ("every_save", 2, set()),
        ("checkpoint", 4, {"last-checkpoint"}),
        ("all_checkpoints", 4, {"checkpoint-3", "checkpoint-6"}),
    ],
)
def test_each_strategy_pushes_the_account_with_the_weights(hub, client, tmp_path, strategy, pushes, more):
    """2 epochs of 3 steps, a save after each; then save_model() pushes."""
    settings = {"push_to_hub": True, "hub_strategy": strategy, "save_strategy": "epoch"}
    client(train, str(tmp_path / "tiny"), **settings)
    repository = hub.model("ann/tiny")
    top = {name for name in repository.files if "/" not in name}
    folders = {name.partition("/")[0] for name in repository.files if "/" in name}
    assert (top, folders) == (WEIGHTS | ACCOUNT, more)
    assert repository.messages[-1] == "Model save" and len(repository.commits) == pushes + 1
    for _, files in repository.commits:
        assert ACCOUNT | WEIGHTS <= set(files)
        assert "## Data pruning" in files["README.md"].decode()
    if pushes:
        begun = json.loads(repository.commits[0][1]["pruning.json"])["totals"]["rows"]
        assert begun < json.loads(repository.files["pruning.json"])["totals"]["rows"] == 24
    for folder in more:
        assert f"{folder}/pruning_state.safetensors" in repository.files


def test_an_upload_that_fails_beside_training_is_told_and_the_next_one_has_it(hub, client, tmp_path):
    hub.faults = [Fault("commit", 403, times=1)]
    settings = {"push_to_hub": True, "save_strategy": "epoch"}
    before = client.log.stat().st_size
    client(train, str(tmp_path / "tiny"), **settings)
    said = client.log.read_text()[before:]
    assert said.count("An upload to the Hub failed") == 1 and "training goes on" in said
    assert "After training, call trainer.push_to_hub()" in said
    assert set(hub.model("ann/tiny").files) == WEIGHTS | ACCOUNT


def test_a_last_upload_that_fails_says_that_nothing_is_lost(hub, client, tmp_path):
    hub.faults = [Fault("commit", 403, times=1)]
    before = client.log.stat().st_size
    with pytest.raises(Exception, match="403"):
        client(train, str(tmp_path / "tiny"), push_to_hub=True, hub_strategy="end")
    said = client.log.read_text()[before:]
    assert "all of it lies in output_dir. Call trainer.push_to_hub() again" in said
    assert WEIGHTS | ACCOUNT <= set(os.listdir(tmp_path / "tiny"))


def test_a_repository_that_may_not_be_made_stops_before_training(hub, client, tmp_path):
    with pytest.raises(Exception, match="403"):
        client(train, str(tmp_path / "tiny"), push_to_hub=True, hub_model_id="foe/tiny")


def test_no_token_and_no_path_leaves_the_machine(hub, client, tmp_path):
    """Stock's pickle of the arguments names output_dir; not even that has the token, which stock leaves in it."""
    settings = {"push_to_hub": True, "save_strategy": "epoch", "hub_strategy": "checkpoint"}
    folder = tmp_path / "tiny"
    before = client.log.stat().st_size
    client(train, str(folder), 1, metrics={"accuracy": 0.5}, **settings)
    files = {
        f"{i}/{name}": blob
        for i, (_, files) in enumerate(hub.model("ann/tiny").commits)
        for name, blob in files.items()
    }
    assert len(files) > 30
    private = [str(tmp_path), str(Path.home()) + "/"]
    for name, blob in files.items():
        assert TOKEN.encode() not in blob, name
        if not name.endswith(OF_STOCK):
            assert not [text for text in private if text.encode() in blob], name
    assert not [body for body in hub.received if TOKEN.encode() in body]
    said = client.log.read_text()[before:]
    assert TOKEN not in said and str(tmp_path) not in said


SHOWN = "this text of a row"
PRIVATE = ("_pruning/examples.json", "_report.html", "_report/x.png", "_begun.json", "__report.html.tmp", "_mine/x")
NESTED = ("", "stage2/", "runs/stage 2/", "_run-0/", "checkpoint-3/", "stage2/checkpoint-3/", "checkpoint-6/")


def plant(folder):
    """Files that show rows, where runs inside a run's folder have them."""
    for place in NESTED:
        for name in PRIVATE:
            path = Path(folder, place + name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SHOWN)


class Plants(TrainerCallback):
    def on_step_end(self, args, *others, **kwargs):
        plant(args.output_dir)


def train_nested(folder, policy, **settings):
    """A run inside the folder of another one, which pushes at each save, at the end and once more."""
    inner = trainer(os.path.join(folder, "stage2"), TASK.model(), rows_of(), POLICY, num_train_epochs=1)
    inner.train()
    inner.save_model()
    Path(folder, "stage2", "__init__.py").write_text("")
    Path(folder, "stage2", "__0_0.distcp").write_text("")
    made = trainer(folder, TASK.model(), rows_of(), policy, hub_token=TOKEN, num_train_epochs=2, **settings)
    made.add_callback(Plants())
    made.add_callback(Waits(made))
    made.train()
    made.save_model()
    made.push_to_hub()


@pytest.mark.parametrize(
    ("strategy", "policy"), [("every_save", None), ("checkpoint", POLICY), ("all_checkpoints", POLICY)]
)
def test_nothing_that_shows_a_row_is_pushed_however_runs_are_nested(hub, client, tmp_path, strategy, policy):
    settings = {"push_to_hub": True, "hub_strategy": strategy, "save_strategy": "epoch"}
    client(train_nested, str(tmp_path / "tiny"), policy, **settings)
    names = {name for _, files in hub.model("ann/tiny").commits for name in files}
    parts = {part for name in names for part in name.split("/")}
    assert {part for part in parts if part.startswith("_")} == {"__init__.py", "__0_0.distcp"}
    assert {"stage2/model.safetensors", "stage2/history.safetensors", "model.safetensors"} <= names
    assert not [body for body in hub.received if SHOWN.encode() in body]
    assert not [name for name, blob in hub.model("ann/tiny").files.items() if SHOWN.encode() in blob]


def test_the_stock_trainer_uploads_as_it_does(monkeypatch):
    from huggingface_hub import HfApi
    from transformers import Trainer

    from hf_prune.train.uploads import rows_kept

    given = []
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **kwargs: given.append(kwargs["ignore_patterns"]))
    place = Trainer.push_to_hub.__globals__

    def upload(patterns):
        call = place["hf_api"]().upload_folder if "hf_api" in place else place["upload_folder"]
        call(ignore_patterns=patterns)

    upload(["_*"])
    with rows_kept():
        upload("_*")
        upload(None)
    upload(["_*"])
    assert given[0] == given[3] == ["_*"] and given[1] == ["_*", *given[2]] and "*/_[!_]*" in given[2]


def test_the_token_still_serves_after_the_arguments_are_pickled():
    from copy import deepcopy

    from hf_prune.train.uploads import Secret

    token = Secret(TOKEN)
    assert token == TOKEN and f"Bearer {token}" == f"Bearer {TOKEN}" and deepcopy([token]) == [TOKEN]
    assert pickle.loads(pickle.dumps({"hub_token": token})) == {"hub_token": None}


@pytest.mark.slow
def test_a_recipe_pushes_what_others_may_see(hub, client, tmp_path, monkeypatch):
    """All of its files and what it says, but for stock's own: no token, no path."""
    flags = "--vocab_size 320 --num_train_epochs 1 --num_beams 1 --use_cpu True --policy uniform --keep 0.5".split()
    write_rows("translate", tmp_path)
    for split in ("train", "validation", "test"):
        flags += [f"--{split}_file", str(tmp_path / f"{split}.parquet")]
    flags += ["--output_dir", str(tmp_path / "tiny"), "--push_to_hub", "--hub_token", TOKEN, "--hub_model_id", "lab/de"]
    for name, value in client.settings.items():
        monkeypatch.setenv(name, value)
    status, *said = run("translate", tmp_path, *flags)
    assert status == 0, said
    files = hub.model("lab/de").files
    assert {"results.json", "predictions.json", "run.png"} | ACCOUNT | WEIGHTS <= set(files)
    for name, blob in files.items():
        private = [TOKEN] if name in OF_STOCK else [TOKEN, str(tmp_path)]
        assert not [text for text in private if text.encode() in blob], name
    assert TOKEN not in "".join(said)
    card = card_of(files)
    assert {(score.metric_type, score.dataset_split) for score in card.data.eval_results} == {
        ("bleu", "test"),
        ("chrf", "test"),
    }
    assert (
        "recipes/translate.py" in card.text
        and "--train_file train.parquet" in card.text
        and "--hub_token TOKEN" in card.text
    )
