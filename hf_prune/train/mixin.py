"""What makes a trainer prune: stock steps, on the rows that a policy selects, on a clock that follows them."""

import os
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer

from .. import policies
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
    _Trainer = object  # the class that the mixin is put before brings Trainer, or a trainer that descends from it

check_members(Trainer, Accelerator, LRScheduler)


class PruningMixin(_Trainer):
    """Puts a pruning policy into any trainer that descends from `Trainer`; it must come before that class.

    Args:
        *args: The trainer's own.
        policy: Chooses the rows of each round: an object, a name, a name with fields such as "infobatch:ratio=0.3", or
            the dotted path of your own module. None = the plain trainer.
        history: What an earlier run learnt of the same rows, which the policy takes in before its first round: a
            `History`, its file, the folder that a run saved its model in, or a repository of the Hub that holds it.
        history_key: Column of the training set that names each row by a text or whole number of its own. It is saved
            with the History (as hashes), and rows of an earlier one that has such names are matched by them, whatever
            was filtered, added or put in another order since. Any other data set than a `datasets.Dataset` is read
            once for it. None = rows go by their place.
        example_loss_func: (outputs, inputs) -> (B,) losses of the batch's examples in nats, for a model whose loss the
            library has no recipe for. Called on every training batch; the gradient passes through where the policy
            gives weights. Of sentence-transformers, `outputs` are the embeddings (B, H) of each text column, or a
            cross-encoder's scores, in a list.
        **kwargs: The trainer's own.

    Raises:
        ValueError: Unknown policy or bad field; rows that have no number; a signal that the model, or a need that the
            data set can't meet; an earlier history of other rows, or none where the policy needs one.
        TypeError: `policy` is neither a policy nor a string.
    """

    # The methods here say where Trainer is entered, and leave what is done there to `_pruning`, the one attribute.
    # `loop` is None where the run has no policy: then every method is Trainer's own.

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
        """The policy in force; another one, given as to the constructor, chooses from the next `train()` on."""
        return self._pruning.policy

    @policy.setter
    def policy(self, policy: str | Policy | None):
        self._pruning.policy = policies.make(policy)

    @property
    def example_loss_func(self) -> Callable[[Any, MutableMapping], torch.Tensor] | None:
        """As given to the constructor; another one is called from the next `train()` on."""
        return self._pruning.example_loss_func

    @example_loss_func.setter
    def example_loss_func(self, losses_of: Callable[[Any, MutableMapping], torch.Tensor] | None):
        self._pruning.example_loss_func = losses_of

    @property
    def history(self) -> History | None:
        """What is known of every row, equal on every rank once a round has ended; None before training."""
        loop = self._pruning.loop
        return loop and loop.engine.state.history

    @property
    def selection(self) -> Selection | None:
        """The rows of the round in progress, and what goes with them; None between rounds."""
        loop = self._pruning.loop
        return loop and loop.engine.state.round and loop.engine.state.round.selection

    def pruning_report(self) -> RunReport:
        """What was kept and what was left out, so far, as numbers, Markdown, figures and a page.

        Raises:
            ValueError: There is no policy, or training has not begun.
        """
        return self._pruning.sharing.report()

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train as `Trainer` does; `resume_from_checkpoint=True` passes over a checkpoint that is not whole.

        Raises:
            ValueError: The checkpoint that was asked for is not whole, or there is none; or another run trains in
                `output_dir` at this moment.
        """
        if self.policy is None:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        with self._pruning.training():
            return super().train(self._pruning.choose(resume_from_checkpoint), *args, **kwargs)

    # ---- The rows: `Trainer` asks for them once for each run ----

    def get_train_dataloader(self):
        """The stock loader; that which a run is about to train on, over numbered rows."""
        return self._pruning.wrap_loader(super().get_train_dataloader)

    def _get_train_sampler(self, train_dataset=None):
        return self._pruning.make_sampler(super()._get_train_sampler, train_dataset)

    def _build_dataloader(self, *args, **kwargs):  # of sentence-transformers, in the place of the sampler
        loader = super()._build_dataloader(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return self._pruning.number_batches(loader)

    def get_eval_dataloader(self, *args, **kwargs):
        """The stock loader."""
        loader, loop = super().get_eval_dataloader(*args, **kwargs), self._pruning.loop
        if loop is not None and "eval" in loop.begun_loaders:
            draw_apart(loader)
        return loader

    # ---- The run ----

    def _inner_training_loop(self, *args, **kwargs):
        self._pruning.enter_loop()
        return super()._inner_training_loop(*args, **kwargs)

    def set_initial_training_values(self, args, dataloader):
        """The stock numbers, with the steps and epochs of the pruned run as far as they can be forecast."""
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
        # the schedule is made for the unpruned run, and read through the clock of the pruned one
        steps = loop.engine.schedule.steps
        model, loader = super()._prepare_for_training(steps, train_dataloader, resume_from_checkpoint)
        loop.prepare(loader)
        return model, loader

    def _run_epoch(self, **kwargs):
        if (loop := self._pruning.loop) is None:
            return super()._run_epoch(**kwargs)
        return loop.run_epoch(super()._run_epoch, kwargs)

    def training_step(self, model, inputs, *args, **kwargs):
        """The stock step. A subclass's own `compute_loss` need not call this class's, and may pass all on to the model.

        Raises:
            ValueError: Of the first batch: it does not call it, and makes the loss of other things than the logits, so
                that the rows can't be weighted. Of any: a `train` of its own takes steps.
        """
        self._pruning.check_loop()
        loop = self._pruning.loop
        if loop is None or type(self).compute_loss is PruningMixin.compute_loss:
            return super().training_step(model, inputs, *args, **kwargs)
        return loop.steps.take(super().training_step, model, inputs, *args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, *args, **kwargs):
        """The stock loss; what it tells of each row is recorded on the side, and weighted where the policy says so."""
        if (loop := self._pruning.loop) is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        return loop.steps.loss(super().compute_loss, model, inputs, return_outputs, *args, **kwargs)

    def _finalize_training(self, trial, num_train_samples, start_time):
        if loop := self._pruning.loop:
            num_train_samples = loop.finish()
        return super()._finalize_training(trial, num_train_samples, start_time)

    # ---- Logs and evaluations ----

    def log(self, logs, *args, **kwargs):
        """As stock; in a round, logs of losses and evaluations also say what was kept, trained and measured so far."""
        if (loop := self._pruning.loop) is None:
            return super().log(logs, *args, **kwargs)
        return loop.logs.write(super().log, logs, *args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As stock; its seconds are counted."""
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
        if loop := self._pruning.loop:  # all processes come here, before Trainer's state says that all is written
            loop.save(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, *args, **kwargs):  # some trainers' takes no more
        if not load_renamed(self, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_best_model(self):
        if not load_renamed(self, str(self.state.best_model_checkpoint)):
            super()._load_best_model()

    # ---- What others get ----

    def save_model(self, output_dir=None, _internal_call=False):
        """As stock; with what was learnt of every row beside it, for other runs and for `hf-prune report`."""
        keep_secrets(self.args)  # again: they may have been put there since
        super().save_model(output_dir, _internal_call)  # the weights first: nothing that follows can cost them
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
        """The stock card with a section on data pruning, tags, and the scores where the Hub looks for them.

        Args:
            *args: As stock; names of data sets that are paths are shortened.
            metrics: Final scores by the names that `evaluate` and the Hub know; None = those of the last evaluation.
            split: The split that they were measured on.
            command: What started the run, for whoever wants to do it again.
            **kwargs: As stock. What the card of another trainer, as of TRL's, has no place for serves the scores alone.
        """
        self._pruning.sharing.make_card(super().create_model_card, args, kwargs, metrics, split, command)

    def push_to_hub(self, *args, **kwargs):
        """As stock, with the account of the run beside the weights; arguments of `create_model_card` go on to it."""
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
