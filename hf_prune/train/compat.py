"""Trainer's own insides that the mixin overrides or calls: named once, checked when the package is imported."""

import inspect
from importlib.metadata import version

FIRST, LAST = "5.3.0", "5.23.0"  # of transformers, that the tests run with

# Method -> its parameters without self, all of them: the mixin hands them on one by one. After ... others may follow:
# the mixin hands on whatever comes, or calls the method with these alone.
SEAMS = {
    "_get_train_sampler": ("train_dataset",),
    "_get_collator_with_removed_columns": ("data_collator", "description", ...),
    "_remove_unused_columns": ("dataset", "description", ...),
    "_set_signature_columns_if_needed": (),
    "_prepare_inputs": ("inputs", ...),
    "_wrap_model": ("model", "training", ...),
    "_inner_training_loop": (...,),
    "set_initial_training_values": ("args", "dataloader"),
    "_init_training_state": (
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_prepare_for_training": ("max_steps", "train_dataloader", "resume_from_checkpoint"),
    "_run_epoch": (
        "epoch",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "resume_from_checkpoint",
        "epochs_trained",
        "steps_trained_in_current_epoch",
        ...,
    ),
    "_maybe_log_save_evaluate": (...,),
    "_evaluate": (...,),
    "_get_output_dir": ("trial", ...),
    "_save": ("output_dir", ...),
    "_save_checkpoint": ("model", "trial"),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_save_rng_state": ("output_dir",),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_best_model": (),
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
}


def check_seams(trainer: type) -> None:
    """Make sure that `trainer` still has every method of `SEAMS`.

    Raises:
        ImportError: One is gone or takes other arguments; names it, the versions, and what to install.
    """
    for name, parameters in SEAMS.items():
        known = [parameter for parameter in parameters if parameter is not ...]
        method = getattr(trainer, name, None)
        found = list(inspect.signature(method).parameters)[1:] if method else []
        fits = set(known) <= set(found) if ... in parameters else known == found
        if method is None or not fits:
            state = f"has as {name}({', '.join(found)})" if method else "lacks"
            raise ImportError(
                f"hf_prune counts on {trainer.__name__}.{name}({', '.join(known)}), which the installed transformers "
                f"{version('transformers')} {state}. It is tested with transformers {FIRST} to {LAST}: "
                f"pip install 'transformers>={FIRST},<={LAST}', or a newer hf_prune."
            )
