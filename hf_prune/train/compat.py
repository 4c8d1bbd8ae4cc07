"""Private members of Trainer and of other libraries that we rely on, checked when the package is imported.

Each is named here once. A test reads the package's source and makes sure that no other private member is used.
"""

import dis
import inspect
from importlib.metadata import version
from types import FunctionType

FIRST, LAST = "5.3.0", "5.23.0"  # versions of transformers that the tests run with

# Method -> all its parameters except self: the mixin passes them on one by one. A list with ... may have further
# parameters: the mixin passes on whatever it gets, or calls the method with the listed ones alone.
MEMBERS = {
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

# Class -> attributes that its methods set. At import no object exists, so `_sets` reads the methods' bytecode.
ATTRIBUTES = {
    "Trainer": (
        "_train_batch_size",  # rows in a device's batch; auto_find_batch_size makes it smaller than in the arguments
        "_signature_columns",  # names of the columns that the model takes
        "_globalstep_last_logged",
    ),
    "Accelerator": ("_dataloaders",),  # all prepared loaders; we remove the loader of a rescoring pass again
    "LRScheduler": ("_last_lr",),  # get_last_lr returns it
}

# Members that only some versions or other libraries' trainers have. Code that uses one first checks that it exists.
OPTIONAL = {
    "_initial_global_step": "later versions of Trainer, whose count of samples is a share of those of max_steps",
    "_metrics": "TRL's trainers: what their next log of an evaluation says",
    "_build_dataloader": "sentence-transformers' trainers since 5.4: makes a loader of batches that they cut",
    "_build_hashes": "sentence-transformers' NoDuplicatesBatchSampler: fills _row_hashes",
    "_row_hashes": "see there: a hash of each text of each row",
    "_name_or_path": "a model's config: where its weights came from",
}


def check_members(trainer: type, *others: type) -> None:
    """Check that every member of `MEMBERS` and `ATTRIBUTES` still exists.

    Args:
        trainer: `transformers.Trainer`.
        *others: The other classes of `ATTRIBUTES`.

    Raises:
        ImportError: A member is gone or takes other arguments. The message names it, the versions, and what to install.
    """
    for name, parameters in MEMBERS.items():
        known = [parameter for parameter in parameters if parameter is not ...]
        method = getattr(trainer, name, None)
        found = list(inspect.signature(method).parameters)[1:] if method else []
        fits = set(known) <= set(found) if ... in parameters else known == found
        if method is None or not fits:
            state = f"has as {name}({', '.join(found)})" if method else "lacks"
            _refuse(f"{trainer.__name__}.{name}({', '.join(known)})", "transformers", state)
    for cls in (trainer, *others):
        for name in ATTRIBUTES[cls.__name__]:
            if not _sets(cls, name):
                library = "transformers" if cls is trainer else cls.__module__.partition(".")[0]
                _refuse(f"{cls.__name__}.{name}", library, "lacks")


def _sets(cls: type, name: str) -> bool:
    """Whether any method of a class sets an attribute of this name."""
    members = (member for base in cls.__mro__ for member in vars(base).values() if isinstance(member, FunctionType))
    codes = (code for member in members if name in (code := inspect.unwrap(member).__code__).co_names)
    return any(
        step.opname == "STORE_ATTR" and step.argval == name for code in codes for step in dis.get_instructions(code)
    )


def _refuse(member: str, library: str, state: str) -> None:
    raise ImportError(
        f"hf_prune counts on {member}, which the installed {library} {version(library)} {state}. "
        f"It is tested with transformers {FIRST} to {LAST}: "
        f"pip install 'transformers>={FIRST},<={LAST}', or a newer hf_prune."
    )
