"""The mixin that makes a trainer prune: Trainer's own steps, on the rows that a policy selects."""

import os
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer

from .. import policies
from ..common.command import stage
from ..core import Policy, Selection
from ..records.history import History
from ..report.page import RunReport
from .compat import check_members
from .loading import draw_apart, load_renamed
from .pruning import Pruning
from .uploads import keep_secrets, rows_kept

if TYPE_CHECKING:
    _Trainer = Trainer
else:
    _Trainer = object  # the mixin is combined with a class that descends from Trainer

check_members(Trainer, Accelerator, LRScheduler)


class PruningMixin(_Trainer):
    """Adds a pruning policy to any trainer that descends from `Trainer`. The mixin must come before that class.

    Args:
        *args: The trainer's own arguments.
        policy: Chooses the rows of each round: an object, a name, a name with fields such as "infobatch:ratio=0.3", or
            the dotted path of your own module. None = the plain trainer.
        history: Warm start: what an earlier run learned about the same rows. The policy reads it before its first
            round. A `History`, its file, the folder where a run saved its model, or a Hub repository that holds the
            file. None = cold start.
        history_key: Column of the training set that names each row by a unique text or whole number. The names are
            saved with the History, as hashes. Rows of an earlier History with names are matched by name, so the data
            set may have been filtered, extended or reordered since. A data set that is not a `datasets.Dataset` is
            read once to get the names. None = rows are matched by position.
        example_loss_func: (outputs, inputs) -> (B,) losses of the batch's examples in nats, for a model whose loss the
            library has no recipe for. It is called on every training batch. Where the policy gives weights, the
            gradient passes through it. With sentence-transformers, `outputs` is a list: the embeddings (B, H) of each
            text column, or a cross-encoder's scores.
        **kwargs: The trainer's own arguments.

    Raises:
        ValueError: The policy is unknown or a field is bad; the rows have no numbers; the model or the data set can't
            give what the policy needs; the earlier History is of other rows, or is missing and the policy needs one.
        TypeError: `policy` is neither a policy nor a string.
    """

    # The methods here only mark the entry points into Trainer; the work is done in `_pruning`, the one attribute.
    # `loop` is None if the run has no policy: then every method is Trainer's own.

    def __init__(
        self,
        *args,
        policy: str | Policy | None = None,
        history: str | os.PathLike | History | None = None,
        history_key: str | None = None,
        example_loss_func: Callable[[Any, MutableMapping], torch.Tensor] | None = None,
        **kwargs,
    ):
        chosen = policies.make(policy)
        if chosen is None and (history, history_key) != (None, None):
            name = "history" if history_key is None else "history_key"
            raise ValueError(f"{name}=...: only a policy can use an earlier history; give policy=, or leave it out.")
        self._pruning = Pruning(self, chosen, history, history_key, example_loss_func)
        super().__init__(*args, **kwargs)
        keep_secrets(self.args)
        self._pruning.check(super()._get_train_sampler)

    # ---- What the user sees ----

    @property
    def policy(self) -> Policy | None:
        """The current policy. It can be set in any form that the constructor takes, for the next `train()`."""
        return self._pruning.policy

    @policy.setter
    def policy(self, policy: str | Policy | None):
        self._pruning.policy = policies.make(policy)

    @property
    def example_loss_func(self) -> Callable[[Any, MutableMapping], torch.Tensor] | None:
        """The constructor's argument. It can be set, for the next `train()`."""
        return self._pruning.example_loss_func

    @example_loss_func.setter
    def example_loss_func(self, losses_of: Callable[[Any, MutableMapping], torch.Tensor] | None):
        self._pruning.example_loss_func = losses_of

    @property
    def history(self) -> History | None:
        """What is known about every row; None before training. It is equal on all ranks after each round."""
        loop = self._pruning.loop
        return loop and loop.engine.state.history

    @property
    def selection(self) -> Selection | None:
        """The selection of the round in progress; None between rounds."""
        loop = self._pruning.loop
        return loop and loop.engine.state.round and loop.engine.state.round.selection

    def pruning_report(self) -> RunReport:
        """Report what was kept and pruned so far, as numbers, Markdown, figures and a page.

        Raises:
            ValueError: There is no policy, or training has not begun.
        """
        return self._pruning.sharing.report()

    def score_rows(self, folder: str | os.PathLike | None = None) -> History:
        """Measure every training row with the model as it is, by forward passes alone; nothing is trained.

        Every process must call this: they share the rows. `loss` is the mean loss per target token, or the row's loss;
        `correct` and `confidence` are among the signals where the task has them. The History is a `history` for other
        trainers on these rows; its cost counts there.

        Args:
            folder: Where to write `history.safetensors` and `history.parquet`. A call that was killed goes on from
                what it had measured; one that had ended returns its History. None = in memory alone.

        Raises:
            ValueError: The losses of the model's rows can't be read; the model is in shards; the processes have
                different rows; or `folder` holds a History of another model or of other rows.
        """
        return self._pruning.score_rows(folder)

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train as `Trainer` does. `resume_from_checkpoint=True` skips checkpoints that are not whole.

        In a script that `hf-prune score --model` runs, score the rows into `output_dir` and end the script instead.

        Raises:
            ValueError: The requested checkpoint is not whole, or there is none; or another run is training in
                `output_dir`.
        """
        if stage.scores is not None:
            self.score_rows(str(self.args.output_dir))
            raise SystemExit
        if self.policy is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        with self._pruning.training():
            return super().train(self._pruning.choose(resume_from_checkpoint), *args, **kwargs)

    # ---- The rows: `Trainer` asks for a loader once per run ----

    def get_train_dataloader(self):
        """Return Trainer's loader. For the loader that a run trains on, the rows are numbered."""
        return self._pruning.wrap_loader(super().get_train_dataloader)

    def _get_train_sampler(self, train_dataset=None):
        return self._pruning.make_sampler(super()._get_train_sampler, train_dataset)

    def _build_dataloader(self, *args, **kwargs):  # sentence-transformers' trainers call this
        loader = super()._build_dataloader(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return self._pruning.number_batches(loader)

    def get_eval_dataloader(self, *args, **kwargs):
        """Return Trainer's loader."""
        loader, loop = super().get_eval_dataloader(*args, **kwargs), self._pruning.loop
        if loop is not None and "eval" in loop.begun_loaders:
            draw_apart(loader)
        return loader

    # ---- The run ----

    def _inner_training_loop(self, *args, **kwargs):
        self._pruning.enter_loop()
        return super()._inner_training_loop(*args, **kwargs)

    def set_initial_training_values(self, args, dataloader):
        """Return Trainer's numbers, with a forecast of the steps and epochs of the pruned run."""
        return self._pruning.plan(super().set_initial_training_values(args, dataloader), dataloader)

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        start = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        return self._pruning.restore(start, num_train_epochs, resume_from_checkpoint, trial)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if (loop := self._pruning.loop) is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # the learning-rate schedule is made for the unpruned run, and follows the clock of the pruned run
        steps = loop.engine.schedule.steps
        model, loader = super()._prepare_for_training(steps, train_dataloader, resume_from_checkpoint)
        loop.prepare(loader)
        return model, loader

    def _run_epoch(self, **kwargs):
        if (loop := self._pruning.loop) is None:
            return super()._run_epoch(**kwargs)
        return loop.run_epoch(super()._run_epoch, kwargs)

    def training_step(self, model, inputs, *args, **kwargs):
        """Take Trainer's own training step.

        A subclass's `compute_loss` need not call this class's. It may pass all inputs on to the model.

        Raises:
            ValueError: On the first batch: the subclass's `compute_loss` does not call this class's, and does not
                compute the loss from the logits, so the rows can't be weighted. On any batch: the trainer has a
                `train` method that takes steps without Trainer's loop.
        """
        self._pruning.check_loop()
        loop = self._pruning.loop
        if loop is None or type(self).compute_loss is PruningMixin.compute_loss:
            return super().training_step(model, inputs, *args, **kwargs)
        return loop.steps.take(super().training_step, model, inputs, *args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, *args, **kwargs):
        """Compute Trainer's own loss. Record each row's loss, and weight the losses if the policy gives weights."""
        if (loop := self._pruning.loop) is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        return loop.steps.loss(super().compute_loss, model, inputs, return_outputs, *args, **kwargs)

    def _finalize_training(self, trial, num_train_samples, start_time):
        if loop := self._pruning.loop:
            num_train_samples = loop.finish()
        return super()._finalize_training(trial, num_train_samples, start_time)

    # ---- Logs and evaluations ----

    def log(self, logs, *args, **kwargs):
        """Log as Trainer does. During a round, logs of losses and evaluations also have the pruning values."""
        if (loop := self._pruning.loop) is None:
            return super().log(logs, *args, **kwargs)
        return loop.logs.write(super().log, logs, *args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """Evaluate as Trainer does, and count the seconds."""
        with self._pruning.evaluating():
            return super().evaluate(*args, **kwargs)

    def _evaluate(self, *args, **kwargs):  # calls `evaluate`, which may be a subclass's own
        with self._pruning.evaluating():
            return super()._evaluate(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if (loop := self._pruning.loop) is None:
            return super()._maybe_log_save_evaluate(*args, **kwargs)
        with loop.logs.between_steps():
            return super()._maybe_log_save_evaluate(*args, **kwargs)

    # ---- Checkpoints ----

    def _save_checkpoint(self, model, trial):
        with self._pruning.saving(trial):
            return super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if loop := self._pruning.loop:  # all processes come here, before Trainer writes its state as the last file
            loop.save(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, *args, **kwargs):  # some trainers take no `model` here
        if not load_renamed(self, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_best_model(self):
        if not load_renamed(self, str(self.state.best_model_checkpoint)):
            super()._load_best_model()

    # ---- What is shared ----

    def save_model(self, output_dir=None, _internal_call=False):
        """Save as Trainer does, and save the History beside the model, for other runs and for `hf-prune report`."""
        keep_secrets(self.args)  # again: secrets may have been added since the start
        super().save_model(output_dir, _internal_call)  # the weights first: a later error can't lose them
        if not _internal_call:
            self._pruning.sharing.save_account(output_dir or str(self.args.output_dir))

    def _save(self, *args, **kwargs):
        keep_secrets(self.args)
        super()._save(*args, **kwargs)

    def create_model_card(
        self,
        *args,
        metrics: dict[str, float] | None = None,
        split: str | None = None,
        command: str | None = None,
        **kwargs,
    ):
        """Write Trainer's model card, with a section on data pruning, tags, and scores in the format of the Hub.

        Args:
            *args: See `Trainer.create_model_card`. If the name of a data set is a path, it is shortened.
            metrics: Final scores, by the names that `evaluate` and the Hub use; None = those of the last evaluation.
            split: The split that the scores were measured on.
            command: The command that started the run, so that others can repeat it.
            **kwargs: See `Trainer.create_model_card`. Some trainers (TRL's) take fewer arguments: the others are then
                used only to describe the scores.
        """
        self._pruning.sharing.make_card(super().create_model_card, args, kwargs, metrics, split, command)

    def push_to_hub(self, *args, **kwargs):
        """Push as Trainer does, with the run's account beside the weights.

        Args:
            *args: See `Trainer.push_to_hub`.
            **kwargs: See `Trainer.push_to_hub`. Arguments of `create_model_card` are passed on to it.
        """
        self._pruning.sharing.save_account(str(self.args.output_dir))
        try:
            with rows_kept():
                return super().push_to_hub(*args, **kwargs)
        except Exception:
            self._pruning.warn(
                "The upload to the Hub failed, for the reason below; all of it lies in output_dir. Call "
                "trainer.push_to_hub() again: what had arrived is not sent twice."
            )
            raise

    def _push_from_checkpoint(self, checkpoint_folder):
        before = self._pruning.sharing.prepare_push()
        keep_secrets(self.args)
        with rows_kept():
            super()._push_from_checkpoint(checkpoint_folder)
        self._pruning.sharing.watch_push(before)
