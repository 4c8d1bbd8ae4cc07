"""Every class of the installed transformers that has a loss, as small as its config lets it be, and inputs for it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import torch
import transformers as tf

ROWS, LENGTH, VOCAB = 3, 10, 48
LARGEST = 25_000_000  # parameters
TASKS = re.compile(r"For[A-Z]\w*$|LMHeadModel$|WithLMHead$|MTModel$|EncoderDecoderModel$")
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, cls_token_id=1, sep_token_id=2)

# What the fields of configs are called, and how large they are at most.
DEPTH = r"(num_|n_|r_|l_|x_|mtp_)?(hidden_|encoder_|decoder_|text_|transformer_)?(layers?|blocks)|depth"
HEADS = r"(num_|n_|encoder_|decoder_|mamba_|linear_)+(attention_|self_attention_|cross_attention_)?heads?|nhead|heads"
GROUPS = r"num_(global_)?key_value_heads|num_kv_heads|(encoder|decoder)_num_key_value_heads|multi_query_group_num"
VOCABS = r"\w*vocab_size\w*"
EXPERTS = r"(num_|n_)(local_|routed_|moe_)*experts"
WIDTH = (
    r"((encoder_|decoder_|text_|vision_|audio_|mm_|out_|embedding_|cross_attention_|backbone_|projector_|pooler_|model_"
    r"|input_embedding_|projection_|output_)*(hidden_size|hidden_dim|dim|size)|d_model|d_latents|n_embd|emb_dim|embed_dim"
    r"|embed_dims|hidden_channels|width|word_embed_proj_dim|lru_width|proj_dim|entity_emb_size|num_features)"
)
INNER = (
    r"(\w*_)?(intermediate_size(_mlp)?|ffn_(hidden_)?(size|dim)|d_ff|n_inner|feed_?forward_(size|dim)|(mlp|inner)_dim)"
)
SIZES = {
    DEPTH: 2,
    HEADS: 4,
    GROUPS: 2,
    r"(head_dim|d_kv|kv_channels|attention_head_(size|dim)|(qk_rope|qk_nope|v|global|swa|index|mamba)_head_dim"
    r"|linear_(key_|value_)?head_dim|mamba_d_head|mamba_headdim)": 8,
    VOCABS: VOCAB,
    r"codebook_size": 32,
    WIDTH: 32,
    INNER: 40,
    r"(max_\w*positions?(_embeddings)?|n_positions|max_seq(uence)?_len(gth)?|n_ctx|seq_length)": 64,
    r"(image|img)_size": 32,
    r"patch_size": 8,
    EXPERTS: 4,
    r"rotary_dim": 4,
    r"(mamba_)?expand": 1,
    r"num_experts_per_tok(en)?|moe_(top)?k|num_selected_experts|top_k|moe_top_k": 2,
    r"\w+_lora_rank|mamba_d_(state|ssm)|state_size|ssm_state_size|time_step_rank": 8,
    r"n_group|topk_group|first_k_dense_replace|mamba_n_groups|n_groups": 1,
    r"num_conv_pos_embeddings|num_mel_bins|feature_size|input_feat_per_channel": 16,
    r"num_conv_pos_embedding_groups|num_codebooks|num_frames": 2,
    r"sliding_window|attention_window(_size)?|local_attention|window_size": 8,
}
FEW = {pattern: SIZES[pattern] for pattern in (DEPTH, VOCABS, EXPERTS)}


def classes() -> dict[str, list[type]]:
    """Folder of transformers.models -> its classes of models for a task."""
    found = {}
    for folder in pkgutil.iter_modules(tf.models.__path__):
        for file in _files(folder.name):
            try:
                module = importlib.import_module(f"transformers.models.{folder.name}.{file}")
            except ImportError:  # of a library that it needs
                continue
            for name, cls in vars(module).items():
                is_own = inspect.isclass(cls) and cls.__module__ == module.__name__
                if is_own and issubclass(cls, tf.PreTrainedModel) and cls.config_class and TASKS.search(name):
                    found.setdefault(folder.name, []).append(cls)
    return found


def _files(folder: str) -> list[str]:
    (root,) = tf.models.__path__
    return [file.name for file in pkgutil.iter_modules([f"{root}/{folder}"]) if file.name.startswith("modeling_")]


def models(cls: type, **fields) -> Iterator[Any]:
    """The class's model, in each of the sizes that may work, with random parameters; raises what the first raised."""
    errors = []
    for sizes in (SIZES, SIZES | {GROUPS: 4}, FEW):
        try:
            config = cls.config_class()
            shrink(config, sizes)
            for name, value in fields.items():
                setattr(config, name, value)
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in cls(config).parameters())
            if count > LARGEST:
                raise ValueError(f"{count:,} parameters")
            torch.manual_seed(0)
            model = cls(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.is_floating_point():
                        parameter.copy_(0.2 * torch.randn_like(parameter))
            yield model
        except Exception as caught:  # of any kind: sizes that do not fit each other
            errors.append(caught)
    if errors:
        raise errors[0]


def shrink(config: Any, sizes: dict[str, int]) -> None:
    """Make a config small, and those within it."""
    fields = vars(config)
    deep = next((fields[name] for name in ("num_hidden_layers", "num_layers") if type(fields.get(name)) is int), 0)
    lists = {name: value for name, value in fields.items() if isinstance(value, list | tuple) and len(value) == deep}
    kinds = [value.index(kind) for value in lists.values() for kind in value if isinstance(kind, str)]
    layers = max(1, *kinds) + 1 if kinds else 2  # one of each kind at least
    for name, value in lists.items():
        _set(config, name, value[:layers])
    for name, value in list(vars(config).items()):
        if isinstance(value, tf.PreTrainedConfig):
            shrink(value, sizes)
        elif name == "image_size" and isinstance(value, list | tuple):
            _set(config, name, type(value)(min(side, 64) for side in value))
        elif type(value) is int or (value is None and name in ("head_dim", "vocab_size", "num_key_value_heads")):
            size = next((size for pattern, size in sizes.items() if re.fullmatch(pattern, name)), None)
            if size is not None:
                _set(config, name, layers if name.startswith("num_") and value == deep else min(value or size, size))
        elif isinstance(value, dict) and "rope_type" in value and re.search(r"VL|Glm|Omni", type(config).__name__):
            heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            half = int(heads * value.get("partial_rotary_factor", 1)) // 2
            value["mrope_section"] = [half - 2 * (half // 4), half // 4, half // 4]
    for name, value in IDS.items():
        if type(now := getattr(config, name, None)) is not int or not 0 <= now < VOCAB:
            _set(config, name, value)
    if hasattr(config, "use_cache"):
        _set(config, "use_cache", False)
    if config.model_type == "xmod":
        config.default_language = config.languages[0]


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except (AttributeError, TypeError, ValueError, NotImplementedError):  # fields that follow from others
        return


def inputs(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """What the forward may take: the text alone where it has one, and with all else that it reads."""
    names = set(inspect.signature(model.forward).parameters)
    config, rng = model.config, torch.Generator().manual_seed(1)
    text = {}
    if "input_ids" in names:
        ids = torch.randint(3, VOCAB - 8, (ROWS, LENGTH), generator=rng)
        ids[:, -1] = getattr(config, "eos_token_id", None) or IDS["eos_token_id"]
        text["input_ids"] = ids
        if "attention_mask" in names:
            text["attention_mask"] = torch.ones_like(ids)
            text["attention_mask"][1, :2] = 0  # on the left, so that the last token is one
    if "bbox" in names:
        text["bbox"] = torch.zeros(ROWS, LENGTH, 4, dtype=torch.long)
    for name in names & {"global_attention_mask", "qformer_input_ids"}:
        text[name] = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    if text:
        yield text
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or getattr(vision, "img_size", None) or 32
    size = tuple(size) if isinstance(size, list | tuple) else (size, size)
    image = (getattr(vision, "num_channels", 3), *size)
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", 16)
    bins = getattr(config, "feature_projection_input_dim", bins)
    more = {
        "pixel_values": [(ROWS, *image), (ROWS, 2, *image), (ROWS, 2, 3, *size)],
        "pixel_values_videos": [(ROWS, 2, 3, *size), (ROWS, getattr(config, "frames_per_clip", 2), 3, *size)],
        "input_values": [(ROWS, 4000), (ROWS, getattr(config, "max_length", 20) or 20, bins)],
        "input_features": [(ROWS, bins, 128), (ROWS, 30, bins)],
    }
    for name, shapes in more.items():
        for shape in shapes if name in names else ():
            yield text | {name: torch.randn(*shape, generator=rng)}
            if text:
                yield {name: torch.randn(*shape, generator=rng)}
