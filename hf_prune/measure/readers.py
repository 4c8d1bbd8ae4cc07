"""Which task a model has, and how a batch of it is read: outputs and targets -> `prediction.Prediction`.

`recipe_for` recognises the task by the model's class and gives its `Recipe`. It gives None for a model that it does not
know; then `why_unread` says why. Most classes share their losses; the classes with a loss of their own are named here.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import IGNORED
from .models import head_of, mask_of, shifts_itself, takes_shifted_loss
from .prediction import Answer, FusedLogProbs, MultiLabel, Picked, Prediction, Regression, Shares, is_mapping

TARGETS = ("labels", "shift_labels", "start_positions", "end_positions")
READ = (*TARGETS, "attention_mask", "bbox_first_token_mask")  # what recipes read from the batch

_CLASSES = frozenset({"loss", "correct", "confidence", "el2n", "grad_norm"})
_PROBLEMS = {
    "single_label_classification": _CLASSES,
    "multi_label_classification": frozenset({"loss", "correct"}),
    "regression": frozenset({"loss"}),
}


class NoLogits(ValueError):
    """The model's outputs have no logits: a fused loss makes none."""


@dataclass(frozen=True)
class Recipe(ABC):
    """How the losses of a task's rows are read from a batch.

    Args:
        task: The task in English, for messages.
        gives: Names of the signals that the task can give; "loss" always.
    """

    extras: ClassVar[tuple[str, ...]] = ()  # those of `prediction.EXTRAS` that the task has

    task: str
    gives: frozenset[str]

    @abstractmethod
    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        """Bring a batch into the form of a `Prediction`.

        Args:
            outputs: What the model's forward returned: a mapping, or a tuple with the loss (if any) first.
            targets: What the batch has under the names in `READ`: tensors, unless a collator made something else.

        Raises:
            NoLogits: If the outputs hold none.
            ValueError: If the batch holds no targets, or the two do not fit.
        """

    def _logits(self, outputs: Any, *names: str, dims: int = 2) -> list[Tensor]:
        values = [outputs.get(name) for name in names] if is_mapping(outputs) else outputs
        # In a tuple the loss, if there is one, comes first, and has fewer dimensions.
        found = [value for value in values if isinstance(value, Tensor) and value.dim() >= dims][: len(names)]
        if len(found) < len(names):
            raise NoLogits(
                f"The {self.task} model returned no {' and '.join(names)}, which the rows' losses are read from. "
                'With use_liger_kernel, set liger_kernel_config={"fused_linear_cross_entropy": False, '
                '"cross_entropy": True}; else pass example_loss_func.'
            )
        return found

    def _target(self, targets: Mapping[str, Any], name: str, logits: Tensor) -> Tensor:
        if name not in targets:
            raise ValueError(
                f"The batch lacks {name!r}, which the loss of a {self.task} row is made of; it has targets "
                f"{sorted(set(TARGETS) & set(targets))}. Let the data collator provide it, or pass example_loss_func."
            )
        if not isinstance(targets[name], Tensor):
            raise ValueError(
                f"The {name!r} of a batch are a {type(targets[name]).__name__}, where the loss of a {self.task} row is "
                "made of a tensor. Pass example_loss_func."
            )
        return targets[name].to(logits.device)

    def _classes(self, labels: Tensor, logits: Tensor) -> Tensor:
        """int64; a label that is no class of the logits is ignored: an accelerator could not go on after it."""
        labels = labels.long()
        return labels.masked_fill((labels < 0) | (labels >= logits.shape[-1]), IGNORED)

    def _check(self, fits: bool, logits: Tensor, labels: Tensor) -> None:
        if not fits:
            raise ValueError(
                f"Logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(labels.shape)} in a "
                f"{self.task} model: it adds or drops positions (image tokens, ...). "
                "Pass example_loss_func."
            )


class _AnswerRecipe(Recipe):
    """Question answering by start and end; a position outside the text is ignored."""

    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        logits = torch.stack(self._logits(outputs, "start_logits", "end_logits"), dim=1)
        ends = [self._target(targets, name, logits).reshape(-1) for name in ("start_positions", "end_positions")]
        labels = torch.stack(ends, dim=1).long()
        self._check(logits.shape[:2] == labels.shape, logits, labels)
        length = logits.shape[-1]
        labels = labels.clamp(0, length)
        return Answer(logits, labels.masked_fill(labels == length, IGNORED), self.task, self.gives)


class _ChoiceRecipe(Recipe):
    """One class a row."""

    extras: ClassVar[tuple[str, ...]] = ("given", "predicted")

    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        (logits,) = self._logits(outputs, "logits")
        labels = self._target(targets, "labels", logits)
        classes = logits.squeeze(1) if logits.dim() == 3 else logits  # VideoPrism: (B, 1, C)
        self._check(classes.dim() == 2 and labels.numel() == len(logits), logits, labels)
        return Prediction(classes.unsqueeze(1), self._classes(labels.reshape(-1, 1), logits), self.task, self.gives)


@dataclass(frozen=True)
class _LabelRecipe(_ChoiceRecipe):
    """One class a row, several, or numbers: config.problem_type says which; the first forward pass sets it."""

    config: Any

    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        (logits,) = self._logits(outputs, "logits")
        labels = self._target(targets, "labels", logits)
        problem = _problem_type(self.config, labels.dtype)
        if problem == "single_label_classification":
            return super().read(outputs, targets)
        fits = labels.numel() == len(logits) if logits.shape[1:].numel() == 1 else labels.shape == logits.shape
        self._check(fits, logits, labels)
        form = Regression if problem == "regression" else MultiLabel
        shape = (len(logits), 1, -1)
        return form(logits.reshape(shape), labels.reshape(shape).float(), self.task, self.gives & _PROBLEMS[problem])


class _DebertaRecipe(_LabelRecipe):
    """Like the others where config.problem_type is given; else one class a row (a negative one is none), or shares."""

    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        if self.config.problem_type is not None:
            return super().read(outputs, targets)
        if self.config.num_labels == 1:
            (logits,) = self._logits(outputs, "logits", dims=1)  # (B,) where the loss was made
            return super().read({"logits": logits.reshape(-1, 1)}, targets)
        (logits,) = self._logits(outputs, "logits")
        labels = self._target(targets, "labels", logits)
        if labels.dim() == 1 or labels.shape[-1] == 1:
            return _ChoiceRecipe.read(self, outputs, targets)
        self._check(labels.shape == logits.shape, logits, labels)
        return Shares(logits.unsqueeze(1), labels.unsqueeze(1).float(), self.task, self.gives & {"loss"})


def _problem_type(config: Any, dtype: torch.dtype = torch.int64) -> str:
    """What transformers' loss_utils.py: ForSequenceClassificationLoss makes of labels of this type."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if dtype in (torch.int64, torch.int32) else "multi_label_classification"


@dataclass(frozen=True)
class _TokenRecipe(Recipe):
    """A label a token.

    Args:
        task: As in `Recipe`.
        gives: As in `Recipe`.
        is_shifted: Whether the logits at t predict the label at t + 1.
        virtual: Positions that PEFT puts before a row, where its kind of tuning puts any.
        is_behind: Whether the logits begin with those of an image before the text, which have no labels.
        mask: Name of the batch's tensor that is 0 where a label does not count.
        unpicked: The label of the positions without logits, where the logits of the others are joined to (n, C).
    """

    extras: ClassVar[tuple[str, ...]] = ("worst_token",)

    is_shifted: bool = False
    virtual: int = 0
    is_behind: bool = False
    mask: str | None = None
    unpicked: int | None = None

    def read(self, outputs: Any, targets: Mapping[str, Any]) -> Prediction:
        if is_mapping(outputs) and outputs.get("logits") is None and outputs.get("log_probs") is not None:
            return self._read_scores(outputs["log_probs"], targets)
        (logits,) = self._logits(outputs, "logits")
        if self.unpicked is not None and logits.dim() == 2:
            return self._read_picked(logits, targets)
        labels = self._labels(targets, logits)
        if self.is_behind:
            logits = logits[:, -labels.shape[1] :]
        self._check(logits.dim() == 3 and logits.shape[:2] == labels.shape, logits, labels)
        return Prediction(logits, self._classes(labels, logits), self.task, self.gives)

    def _read_picked(self, logits: Tensor, targets: Mapping[str, Any]) -> Prediction:
        labels = self._labels(targets, logits)
        self._check(labels.dim() == 2 and len(logits) <= labels.numel(), logits, labels)
        # Sorted, not picked out by a mask: their number is known, and nothing waits for the device.
        at = (labels == self.unpicked).flatten().int().argsort(stable=True)[: len(logits)]
        picked = self._classes(labels.flatten()[at], logits)
        return Picked(logits[None], picked[None], self.task, self.gives, at=at, shape=labels.shape)

    def _read_scores(self, scores: Tensor, targets: Mapping[str, Any]) -> Prediction:
        """From (B, T) log-probabilities of the targets, or (B, T - 1) where the last position predicts none."""
        labels = self._labels(targets, scores, int(self.is_shifted))
        self._check(scores.dim() == 2, scores, labels)
        if self.is_shifted and scores.shape[1] == labels.shape[1] - 1:
            scores = F.pad(scores, (0, 1))
        self._check(scores.shape == labels.shape, scores, labels)
        return FusedLogProbs(scores.unsqueeze(-1), labels, self.task, self.gives & {"loss", "confidence"})

    def _labels(self, targets: Mapping[str, Any], logits: Tensor, missing: int = 0) -> Tensor:
        """(B, T) int64: the label that the logits of each position predict; the last `missing` may be absent."""
        if self.is_shifted and "shift_labels" in targets:
            return self._target(targets, "shift_labels", logits).long()
        labels = self._target(targets, "labels", logits).long()
        if self.mask is not None and self.mask in targets:
            mask = self._target(targets, self.mask, logits)
            self._check(mask.shape == labels.shape, logits, labels)
            labels = labels.masked_fill(mask == 0, IGNORED)
        if self.virtual and logits.shape[1] - labels.shape[1] in (self.virtual, self.virtual - missing):
            labels = F.pad(labels, (self.virtual, 0), value=IGNORED)
        return F.pad(labels, (0, 1), value=IGNORED)[..., 1:] if self.is_shifted else labels


def recipe_for(model: nn.Module, peft: Any = None) -> Recipe | None:
    """The recipe for a model's loss, or None where none is known.

    Args:
        model: The model of transformers itself, without the wrappers of DDP, torch.compile or PEFT. It is known by the
            name of its class or of a class that it inherits from, and by its config.
        peft: The active PeftConfig, None without.
    """
    names = [cls.__name__ for cls in type(model).__mro__]
    if "PreTrainedModel" not in names or _refusal(names, model, peft):
        return None
    recipe = next((recipe for name in names if (recipe := _recognise(name, model))), None)
    head = head_of(model)
    # GPT-2, LLaMA and their like make logits of every token in `score`, then pick one: h is not the row's alone.
    picks_later = isinstance(recipe, _LabelRecipe) and head is getattr(model, "score", None)
    if recipe and (head is None or picks_later):
        recipe = replace(recipe, gives=recipe.gives - {"grad_norm"})
    if isinstance(recipe, _TokenRecipe):
        recipe = replace(recipe, virtual=getattr(peft, "num_virtual_tokens", None) or 0)
    return recipe


def why_unread(model: nn.Module, peft: Any = None) -> str:
    """Why `recipe_for` gives None, in a sentence; arguments as there."""
    names = [cls.__name__ for cls in type(model).__mro__]
    return _refusal(names, model, peft) or "There is no recipe for them."


def _refusal(names: list[str], model: Any, peft: Any) -> str | None:
    """Why the losses of a model can't be read although the name of its class promises it."""
    if "PreTrainedModel" not in names:
        return None
    if getattr(peft, "peft_type", None) == "CPT":
        return "CPT of PEFT makes a loss of its own, with a weight for each token of its examples."
    for pattern, reason in _REFUSED.items():
        if any(re.search(pattern, name) for name in names):
            return reason
    if any(name.startswith("Blip") for name in names) and getattr(_text(model.config), "label_smoothing", 0):
        return "The model smooths its labels by itself. Set label_smoothing = 0 in the config of its text model."
    if "GitForCausalLM" in names and not shifts_itself(model):
        return "This version of transformers shifts its labels twice, from row to row. Install a newer one."
    if any(name.endswith("ForMaskedLM") for name in names) and takes_shifted_loss(model):
        return (
            f"transformers finds no 'ForMaskedLM' in the name {names[0]}, and trains it on the next token. Rename the "
            "class, or set its loss_type = 'ForMaskedLM' behind super().__init__."
        )
    return None


_CODES = "A row's targets are codes of several codebooks."
_REFUSED = {
    r"^ProphetNetFor": "Its loss is over n-grams.",
    r"^(Musicgen|MusicgenMelody)For": _CODES,
    r"^(Csm|Moshi|Dia|HiggsAudioV2|Qwen3OmniMoeTalker)\w*For(CausalLM|ConditionalGeneration)$": _CODES,
    r"^VibeVoiceForConditionalGeneration$": "A part of its loss is that of a diffusion model.",
    r"^PI0For": "Its loss is over actions.",
    r"^BrosSpade": "Its loss is over links between boxes.",
}


def _text(config: Any) -> Any:
    return getattr(config, "text_config", config)


def _recognise(name: str, model: Any) -> Recipe | None:
    """The recipe that belongs to a class name."""
    config = model.config
    ranking, generation = _CLASSES - {"grad_norm"}, _CLASSES - {"correct"}  # ranking: each class has an h of its own
    if re.search(r"ForQuestionAnswering(Simple)?$", name):
        # Others answer by class, or by a beam search: their loss is another.
        is_plain = not {"labels", "p_mask"} & set(inspect.signature(model.forward).parameters)
        return _AnswerRecipe("question answering", ranking) if is_plain else None
    if kind := re.search(r"For(Sequence|Image|Video|Audio)Classification$", name):
        task = f"{kind[1].lower()} classification"
        if re.search(_ONE_CLASS, name):
            return _ChoiceRecipe(task, _CLASSES)
        form = _DebertaRecipe if re.search(r"^Deberta(V2)?For", name) else _LabelRecipe
        return form(task, _PROBLEMS[_problem_type(config)], config)
    if name.endswith("ForMultipleChoice"):
        return _ChoiceRecipe("multiple choice", ranking)
    if name.endswith("ForTokenClassification"):
        return _TokenRecipe("token classification", _CLASSES, mask=mask_of(model))
    if name.endswith("ForMaskedLM"):
        is_sparse = getattr(config, "sparse_prediction", False)  # ModernBERT
        unpicked = config.sparse_pred_ignore_index if is_sparse else None
        return _TokenRecipe("masked language modelling", _CLASSES, unpicked=unpicked)
    is_decoder = getattr(config, "use_decoder_only_language_model", None)  # BLIP-2's language model is of either kind
    if config.is_encoder_decoder or is_decoder is False:
        is_known = name.endswith(("ForConditionalGeneration", "MarianMTModel", "EncoderDecoderModel"))
        # A fault of older transformers, not of BLIP-2, which shifts for the other kind.
        is_shifted = is_decoder is None and takes_shifted_loss(model) and not shifts_itself(model)
        return _TokenRecipe("encoder-decoder", generation, is_shifted) if is_known else None
    # XLNet, XLM and Flaubert (WithLMHeadModel) predict permuted or masked tokens.
    is_causal = re.search(r"ForCausalLM$|(?<!XLNet)(?<!With)LMHeadModel$|ModelWithLMHead$", name)
    if name.endswith("ForConditionalGeneration"):  # vision-language models, but for those with a loss of their own
        is_causal = getattr(model, "loss_type", None) in (None, "ForCausalLM", "ForConditionalGeneration")
    if not is_causal:
        return None
    # The decoders of BART and its relatives take labels that are shifted already, and so does CPM-Ant.
    is_shifted = not hasattr(config, "decoder_layers") and name != "CpmAntForCausalLM"
    is_behind = name in ("GitForCausalLM", "Blip2ForConditionalGeneration")
    return _TokenRecipe("causal language modelling", generation, is_shifted, is_behind=is_behind, mask=mask_of(model))


# Always classes, whatever config.problem_type says.
_ONE_CLASS = (
    r"^(Data2VecAudio|Hubert|SEWD?|UniSpeech(Sat)?|Wav2Vec2(Bert|Conformer)?|WavLM)ForSequenceClassification$"
    r"|^WhisperForAudioClassification$"
)
