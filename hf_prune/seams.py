"""Trainer's own insides that the mixin overrides or calls: named once, checked when the package is imported."""

import inspect
from importlib.metadata import version

# method -> the parameters that are counted on
SEAMS = {
    "_get_train_sampler": ("train_dataset",),
    "_get_collator_with_removed_columns": ("data_collator", "description"),
    "_remove_unused_columns": ("dataset", "description"),
    "set_initial_training_values": ("args", "dataloader"),
    "_init_training_state": (
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_run_epoch": (
        "epoch",
        "epochs_trained",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "steps_trained_in_current_epoch",
        "resume_from_checkpoint",
    ),
    "_wrap_model": ("model", "training"),
    "_maybe_log_save_evaluate": (),
    "_get_output_dir": ("trial",),
    "_save_checkpoint": ("model", "trial"),
    "_save_rng_state": ("output_dir",),
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
}


def check_seams(trainer: type) -> None:
    """Make sure that `trainer` still has every method of `SEAMS`.

    Raises:
        ImportError: One is gone or takes other arguments; names it, the versions, and what to install.
    """
    for name, parameters in SEAMS.items():
        method = getattr(trainer, name, None)
        found = tuple(inspect.signature(method).parameters) if method else ()
        if method is None or not set(parameters) <= set(found):
            state = f"has as {name}({', '.join(found)})" if method else "lacks"
            raise ImportError(
                f"hf_prune counts on {trainer.__name__}.{name}({', '.join(parameters)}), which transformers "
                f"{version('transformers')} {state}. Install one that it knows: pip install 'transformers>=5.3,<6'."
            )
