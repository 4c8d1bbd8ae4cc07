"""Support for the trainers of sentence-transformers: they cut their own batches, and have losses of their own."""

import copy
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from ..core import Policy
from .sampler import PruningSampler

_SETTINGS = (  # settings of their loader, besides data set, batches and collator
    *("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator"),
    *("prefetch_factor", "persistent_workers"),
)


def cuts_batches(trainer: Any) -> bool:
    """Whether a trainer belongs to sentence-transformers. Its trainers cut their own batches.

    Raises:
        ValueError: The version of sentence-transformers is not supported.
    """
    if not hasattr(trainer, "get_batch_sampler"):
        return False
    if not hasattr(trainer, "_build_dataloader"):
        raise ValueError(
            f"{type(trainer).__name__} is of a sentence-transformers that a policy can't serve. Take version 5.4 or "
            "newer, or train without a policy."
        )
    return True


def number_batches(trainer: Any, training: Any, loader: DataLoader, seed: int) -> DataLoader:
    """Make the training loader over numbered rows, in batches of the planned rows.

    Args:
        trainer: A trainer of sentence-transformers.
        training: The trainer's `TrainingRows`; this function sets their sampler.
        loader: The loader that the trainer has built.
        seed: Seed of the order, if the trainer's own batch sampler has none.
    """
    batches: Any = loader.batch_sampler
    n = len(training.data)
    if type(batches).__iter__ is BatchSampler.__iter__ and isinstance(batches.sampler, Sampler):
        training.sampler = batches.sampler = PruningSampler(batches.sampler, n, seed)
    else:
        training.sampler = PruningSampler(RandomSampler(training.data), n, getattr(batches, "seed", seed))
        batches = PrunedBatches(batches, training.sampler, partial(_batches_over, trainer, training))
    settings = {name: getattr(loader, name) for name in _SETTINGS}
    return DataLoader(training.numbered, batch_sampler=batches, collate_fn=training.collator, **settings)


def _batches_over(trainer: Any, training: Any, rows: np.ndarray, whole: Any) -> BatchSampler:
    """Make the trainer's own batch sampler over some rows, with the settings of `whole`."""
    made = trainer.get_batch_sampler(
        training.data.select(rows),
        batch_size=whole.batch_size,
        drop_last=whole.drop_last,
        valid_label_columns=trainer.data_collator.valid_label_columns,
        generator=torch.Generator(),
        seed=training.sampler.seed,
    )
    if getattr(whole, "precompute_hashes", False):  # hash all rows once, not the selected ones in each round
        whole._build_hashes()
        made._row_hashes = whole._row_hashes[rows]
    return made


def row_losses(
    trainer: Any, policy: Policy, losses_of: Callable[[list, MutableMapping], Tensor] | None
) -> Callable[[list, MutableMapping], Tensor] | None:
    """Return a function (outputs of a batch's forward passes, its inputs) -> (B,) losses; None = no losses per row.

    Args:
        trainer: A trainer of sentence-transformers.
        policy: The policy; if it weights rows, fewer losses can be used.
        losses_of: The user's `example_loss_func`; it takes precedence over the library's.
    """
    if losses_of is not None:
        return lambda passes, inputs: losses_of(_outputs(trainer, passes, inputs), inputs)
    own = _recipe_for(trainer.loss, policy.weighs)
    return own and (lambda passes, inputs: own(trainer.loss, _outputs(trainer, passes, inputs), inputs.get("label")))


def _outputs(trainer: Any, passes: list[dict], inputs: MutableMapping) -> list:
    """Return (B, H) embeddings of each text column, or (B, L) scores of text pairs; else the model's outputs."""
    if "scores" in passes[0]:
        return [outputs["scores"] for outputs in passes]
    if "sentence_embedding" not in passes[0]:  # several vectors for each text
        return passes
    columns, _ = trainer.collect_features(inputs)
    embeddings = torch.cat([outputs["sentence_embedding"] for outputs in passes])  # several columns share a pass
    return list(embeddings.chunk(len(columns)))


class PrunedBatches(BatchSampler):
    """Batches of the planned rows, made by the trainer's own batch sampler over these rows alone.

    Args:
        whole: The trainer's own batch sampler, over all rows.
        sampler: Holds the planned rows and the epoch. The order of the rows is that of the batch sampler.
        over: (rows, (K,) int64; whole) -> the trainer's own batch sampler over these rows.
    """

    def __init__(
        self,
        whole: BatchSampler,
        sampler: PruningSampler,
        over: Callable[[np.ndarray, BatchSampler], BatchSampler],
    ):
        super().__init__(sampler, whole.batch_size, whole.drop_last)
        self._planned, self._whole, self._over = sampler, whole, over
        self._latest: list[Any] = [None, None]  # rows and their batches; a list, so that shallow copies share it

    def __iter__(self) -> Iterator[list[int]]:
        rows, batches = self._planned.rows, self._batches()
        if hasattr(batches, "seed"):
            batches.seed = self._planned.seed  # pyright: ignore[reportAttributeAccessIssue]
        if set_epoch := getattr(batches, "set_epoch", None):
            set_epoch(self._planned.epoch)
        for batch in batches:
            if max(batch, default=0) >= len(rows):
                raise ValueError(
                    f"The trainer's {type(batches).__name__} gives row {max(batch)} of the {len(rows)} that the policy "
                    "keeps: it must go by the data set that it is handed. Let it, or train without a policy."
                )
            yield rows[batch].tolist()

    def __len__(self) -> int:
        planned, whole = len(self._planned), len(self._whole)
        if planned == len(self._planned.rows):
            return len(self._batches())
        # a forecast: the rows are not known yet, only their number
        is_plain = whole == self._plain_length(self._planned.n)
        return self._plain_length(planned) if is_plain else max(1, round(whole * planned / self._planned.n))

    def _plain_length(self, rows: int) -> int:
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def _batches(self) -> BatchSampler:
        rows = self._planned.rows
        if len(rows) == self._planned.n:
            return self._whole
        if self._latest[0] is not rows:
            try:
                self._latest[:] = rows, self._over(rows, self._whole)
            except ValueError as error:
                raise ValueError(
                    f"The trainer's {type(self._whole).__name__} makes no batches of the {len(rows)} rows that the "
                    f"policy keeps: {error} Keep more rows, or take another batch_sampler."
                ) from error
        return self._latest[1]


# ---- Losses per row ----

_RowLosses = Callable[[Any, list[Tensor], Any], Tensor]  # (loss module, outputs, labels) -> (B,)


def _recipe_for(loss: Any, weighs: bool) -> _RowLosses | None:
    """Return a function that computes the rows' losses; None if the loss compares rows with each other.

    Args:
        loss: The trainer's loss module, or several.
        weighs: Whether the losses will be weighted: then the loss must have no other terms.
    """
    cls = type(loss)
    package, *modules = cls.__module__.split(".")
    if package != "sentence_transformers":
        return None  # a user's subclass may compute anything
    if cls.__name__ == "SpladeLoss":  # its regularizers are computed over the batch, not per row
        own = None if weighs else _recipe_for(loss.loss, weighs)
        return own and (lambda loss, outputs, labels: own(loss.loss, outputs, labels))
    recipes = _OF_SCORES if "cross_encoder" in modules else {} if "multi_vector_encoder" in modules else _OF_EMBEDDINGS
    recipe = recipes.get(cls.__name__.removeprefix("Sparse"))
    inner = [getattr(loss, name) for name in ("loss_fct", "bce_with_logits_loss", "ce_loss") if hasattr(loss, name)]
    # an inner loss without `reduction` is the user's own and may compute anything
    return recipe if all(hasattr(one, "reduction") for one in inner) else None


def _similar(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    scores = loss.cos_score_transformation(torch.cosine_similarity(embeddings[0], embeddings[1]))
    return _unreduced(loss.loss_fct)(scores, labels.float().view(-1))


def _apart(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    labels, distances = labels.float().view(-1), loss.distance_metric(*embeddings)
    return 0.5 * (labels * distances.square() + (1 - labels) * F.relu(loss.margin - distances).square())


def _nearer(loss: Any, embeddings: list[Tensor], labels: Any) -> Tensor:
    anchor, positive, negative = embeddings
    return F.relu(loss.distance_metric(anchor, positive) - loss.distance_metric(anchor, negative) + loss.triplet_margin)


def _distilled(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    teachers = [labels] * len(embeddings) if labels.dim() == 2 else labels.unbind(1)
    found = []
    for student, teacher in zip(embeddings, teachers, strict=True):
        projection, metric = getattr(loss, "projection", None), getattr(loss, "distance_metric", "mse")
        student = student if projection is None else projection(student)
        teacher = teacher.to(student)
        if metric == "cosine":
            found.append(1 - torch.cosine_similarity(student, teacher, dim=-1))
        elif metric == "l2":
            found.append((student - teacher).norm(dim=-1))
        else:
            found.append((student - teacher).square().mean(-1))
    return torch.stack(found).mean(0)


def _compared(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    query, *texts = embeddings
    return _margins(loss, [loss.similarity_fct(query, text) for text in texts], labels)


def _diverging(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    query, *texts = embeddings
    scores = torch.stack([loss.similarity_fct(query, text) for text in texts], 1)
    student, teacher = (getattr(loss, f"{name}_temperature", loss.temperature) for name in ("student", "teacher"))
    expected = torch.softmax(labels / teacher, 1)
    return F.kl_div(torch.log_softmax(scores / student, 1), expected, reduction="none").sum(1) * student**2


def _classified(loss: Any, embeddings: list[Tensor], labels: Tensor) -> Tensor:
    first, second = embeddings
    parts = [first, second] if loss.concatenation_sent_rep else []
    parts += [(first - second).abs()] if loss.concatenation_sent_difference else []
    parts += [first * second] if loss.concatenation_sent_multiplication else []
    logits = loss.classifier(torch.cat(parts, 1).to(loss.classifier.weight.dtype))
    return _unreduced(loss.loss_fct)(logits, labels if labels.shape == logits.shape else labels.view(-1))


def _unreduced(loss: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a PyTorch loss as a function that gives (B,) losses."""
    loss = copy.copy(loss)
    loss.reduction = "none"
    return lambda logits, labels: loss(logits, labels).reshape(len(logits), -1).mean(1)


def _chosen(loss: Any, outputs: list[Tensor], labels: Tensor) -> Tensor:
    (scores,) = outputs
    return _unreduced(loss.ce_loss)(
        loss.activation_fn(scores), labels if labels.is_floating_point() else labels.view(-1)
    )


def _judged(loss: Any, outputs: list[Tensor], labels: Tensor) -> Tensor:
    (scores,) = outputs
    of_score = getattr(loss, "bce_with_logits_loss", None) or loss.loss_fct
    return _unreduced(of_score)(loss.activation_fn(scores.view(-1)), labels.view(-1).float())


def _margins_of_pairs(loss: Any, outputs: list[Tensor], labels: Tensor | list[Tensor]) -> Tensor:
    labels = torch.stack(labels) if isinstance(labels, list) else labels
    return _margins(loss, [loss.activation_fn(scores.view(-1)) for scores in outputs], labels)


def _margins(loss: Any, scores: list[Tensor], labels: Tensor) -> Tensor:
    positive, *negatives = scores
    labels = labels.view(len(positive), -1)
    if labels.shape[1] > len(negatives):  # the labels are the teacher's scores, not their differences
        labels = labels[:, :1] - labels[:, 1:]
    return _unreduced(loss.loss_fct)(positive.unsqueeze(1) - torch.stack(negatives, 1), labels.to(positive.dtype))


_OF_EMBEDDINGS: dict[str, _RowLosses] = {
    "CosineSimilarityLoss": _similar,
    "ContrastiveLoss": _apart,
    "TripletLoss": _nearer,
    **dict.fromkeys(("EmbedDistillLoss", "MSELoss"), _distilled),
    "MarginMSELoss": _compared,
    "DistillKLDivLoss": _diverging,
    "SoftmaxLoss": _classified,
}
_OF_SCORES: dict[str, _RowLosses] = {
    **dict.fromkeys(("BinaryCrossEntropyLoss", "MSELoss"), _judged),
    "CrossEntropyLoss": _chosen,
    "MarginMSELoss": _margins_of_pairs,
}
