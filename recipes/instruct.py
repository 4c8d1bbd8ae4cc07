"""Fine-tune a causal language model on instructions with dynamic data pruning, and report what it saved and cost.

Without arguments, it trains a small Llama from scratch on an embedded corpus of instructions (sums, dates, units,
lists, prices, countries ...). It downloads nothing and takes under two minutes on two CPU cores:

    accelerate launch recipes/instruct.py

Real corpora are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub. They have a column for the prompt and
one for the response, or a column `messages` or `conversations` whose last message is the response. A pretrained model,
fine-tuned as a whole or by LoRA:

    accelerate launch recipes/instruct.py --model_name_or_path Qwen/Qwen2.5-0.5B --lora_rank 8 \
        --train_file train.parquet --validation_file validation.parquet --prompt_column question \
        --response_column answer
    accelerate launch --multi_gpu --num_processes N recipes/instruct.py --train_file ...

The loss covers only the response's tokens, in training and on held-out rows. `--packing True` joins rows into packs of
--max_length tokens. The policy, its budget and --history then count packs as rows.

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain SFTTrainer. `--help` lists the
usual flags and what they are for a model from scratch (pretrained: learning rate 2e-5, 3 epochs), `--help-all` all.
The same command again continues an interrupted run from its last checkpoint, and refuses a finished run.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer
from trl.models import unwrap_model_for_generation

from hf_prune import pruned
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.chats import read_rows
from hf_prune.recipe.columns import tell_length
from hf_prune.recipe.models import loading, shape_of
from hf_prune.recipe.outcome import Outcome, arguments_of, finish
from hf_prune.recipe.session import DEFAULTS, Laps, check_metric, find_checkpoint, run, train
from hf_prune.recipe.splits import CommonArguments, load_splits, read_corpus
from hf_prune.recipe.tokenizers import byte_level_bpe


@dataclass
class RecipeArguments:
    """What to learn, and with which model.

    Args:
        prompt_column: Column of the prompt (GSM8K: question); if it is missing, a column `messages` is read (role and
            content), or `conversations` (from and value, as in ShareGPT).
        response_column: Column of the response (GSM8K: answer).
        context_column: Column of text that goes with the prompt; it may be empty (Alpaca: input; Dolly: context).
        lora_rank: Train low-rank adapters of this rank on all linear layers; the pretrained weights do not change.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch.
    """

    prompt_column: str = "instruction"
    response_column: str = "response"
    context_column: str | None = None
    lora_rank: int | None = None
    model_size: str = "tiny"
    vocab_size: int = 4000


FROM_SCRATCH = DEFAULTS | dict(
    unit="tokens",  # for policies with a budget: leaving out a short response saves little
    output_dir="instruct-output",
    num_train_epochs=5,
    per_device_train_batch_size=8,  # a small corpus, grouped by length, needs many steps; chosen on a CPU
    per_device_eval_batch_size=64,
    learning_rate=3e-3,  # a small model can take it
    lr_scheduler_type="cosine",
    warmup_steps=0.1,  # share of training
    weight_decay=0.1,  # Brown et al. 2020, appendix B
    adam_beta2=0.95,  # Brown et al. 2020, appendix B
    train_sampling_strategy="group_by_length",  # otherwise half of the positions are padding
    max_length=512,
    completion_only_loss=True,
    eval_packing=False,  # held-out rows are measured one by one
    gradient_checkpointing=False,  # a small model fits into memory
    metric_for_best_model="loss",
)
FINE_TUNING = dict(  # for a pretrained model
    learning_rate=2e-5,  # TRL's default
    num_train_epochs=3,
    per_device_train_batch_size=8,
    per_device_eval_batch_size=8,
    weight_decay=0.0,
    adam_beta2=0.999,
    max_length=1024,
    gradient_checkpointing=True,
)
LORA = dict(
    learning_rate=2e-4,  # ten times that of full fine-tuning: Schulman et al. 2025, LoRA Without Regret
)
LORA_ALPHA = 32  # makes the best learning rate almost independent of the rank: same source

SIZES = {  # width, layers, heads, inner width of the feed-forward layers (8/3 of the width: Touvron et al. 2023)
    "tiny": (128, 3, 4, 352),
    "small": (256, 4, 8, 704),
    "base": (512, 8, 8, 1376),
}
TEMPLATE = (  # for a tokenizer without one; nothing follows the end of a response, so nothing more is learned
    "{{ bos_token }}{% for message in messages %}{{ ('' if loop.first else '\\n') + '<|' + message['role'] + '|>\\n' }}"
    "{{ message['content'] + (eos_token if message['role'] == 'assistant' else '') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|assistant|>\\n' }}{% endif %}"
)

# ---- Data ----


def load_corpus(common: CommonArguments, recipe: RecipeArguments, seed: int, say=print) -> DatasetDict:
    """Splits train, validation and, if there is one, test, as `read_rows` gives them; see `load_splits`."""

    def prepare(rows, name):
        return read_rows(rows, recipe, name, say, common.carried(rows, "prompt", "completion", "length"))

    return load_splits(common, lambda: read_corpus(__file__), prepare, seed)


# ---- Model ----


def new_tokenizer(texts, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which each role is a token, too."""
    special = ["<pad>", "<s>", "</s>", *(f"<|{role}|>" for role in ("system", "user", "assistant"))]
    bpe = byte_level_bpe(texts, vocab_size, special)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=special[3:], **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, max_length: int) -> LlamaForCausalLM:
    """A Llama with random weights, one embedding for input and output; ValueError for an unknown size."""
    width, layers, heads, inner = shape_of(size, SIZES)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def load_model(common: CommonArguments, recipe: RecipeArguments, args: SFTConfig, corpus: DatasetDict):
    """The model (or its name for the trainer) in float32, its tokenizer, and the adapter to train, if any."""
    model = path = common.model_name_or_path
    if path:
        with loading(path):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=args.trust_remote_code)
    else:
        texts = (m["content"] for row in corpus["train"] for side in ("prompt", "completion") for m in row[side])
        tokenizer = new_tokenizer(texts, recipe.vocab_size)
        model = new_model(recipe.model_size, tokenizer, args.max_length or 2048)
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE
    lora = {"r": recipe.lora_rank, "lora_alpha": LORA_ALPHA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return model, tokenizer, LoraConfig(**lora) if recipe.lora_rank else None


# ---- Metric ----


class InstructTrainer(pruned(SFTTrainer)):
    """Measures held-out rows one by one; the stock trainer reports means over batches."""

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(B,) nats over the row's target tokens, (B,) whether all are the most likely ones; (B,) their number."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        is_target = outputs.label_mask
        values = torch.stack([-outputs.log_probs.float() * is_target, ~outputs.is_top1 & is_target, is_target], -1)
        if "position_ids" in inputs:  # rows joined into one sequence; each row begins at position 0
            row = (inputs["position_ids"][0] == 0).cumsum(0) - 1
            sums = values.new_zeros(row.max() + 1, 3).index_add(0, row[1:], values[0])
            sums = sums[sums[:, 2] > 0]  # the batch's padding begins at 0, too, and has no target
        else:
            sums = values.sum(1)
        nats, misses, tokens = sums.unbind(1)
        return None, (nats, misses == 0), tokens.long()


def score(nats, is_exact, tokens) -> dict[str, float]:
    """Loss and perplexity per token, and the share of hits, from the rows' nats, hits and tokens, (N,) each."""
    loss = float(np.sum(nats, dtype=np.float64) / np.sum(tokens, dtype=np.float64))
    return {"loss": loss, "perplexity": float(np.exp(loss)), "exact_match": float(np.mean(is_exact))}


# ---- Train ----


def read_flags(argv: Sequence[str] | None):
    """The common flags, the recipe's, the training arguments and the policy; ValueError for values that don't fit."""
    types = (CommonArguments, RecipeArguments, SFTConfig)
    common, recipe, *_ = parse(*types, argv=argv, **FROM_SCRATCH)
    special = (FINE_TUNING if common.model_name_or_path else {}) | (LORA if recipe.lora_rank else {})
    common, recipe, args, policy = parse(*types, argv=argv, **FROM_SCRATCH | special)
    if recipe.lora_rank and not common.model_name_or_path:
        raise ValueError("lora_rank: adapters are saved without the model they adapt; give --model_name_or_path.")
    for name, value in {"completion_only_loss": True, "eval_packing": False, "shuffle_dataset": False}.items():
        if getattr(args, name) is not value:
            raise ValueError(f"{name}: held-out rows are scored in their order by their responses; leave it {value}.")
    check_metric(args, ("perplexity", "exact_match"))
    return common, recipe, args, policy


def main(argv: Sequence[str] | None = None) -> None:
    laps = Laps()
    common, recipe, args, policy = read_flags(argv)
    arguments = arguments_of(common, recipe, args)
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)
    with args.main_process_first(desc="read the corpus"):
        corpus = load_corpus(common, recipe, args.data_seed or 0, say)  # --seed does not change the rows
    model, tokenizer, adapter = load_model(common, recipe, args, corpus)
    with loading(str(common.model_name_or_path), SafetensorError):
        trainer = InstructTrainer(
            model=model,
            args=args,
            policy=policy,
            train_dataset=corpus["train"],
            eval_dataset={split: rows for split, rows in corpus.items() if split != "train"},  # tokenized with train
            processing_class=tokenizer,
            peft_config=adapter,
            compute_metrics=lambda outputs: score(*outputs.predictions, outputs.label_ids),
            **common.for_trainer(),
        )
    for split, rows in {"train": trainer.train_dataset, **trainer.eval_dataset}.items():
        say(tell_length(rows, split, len(corpus[split]), args.max_length))
    trained = trainer.model.num_parameters(only_trainable=True)
    say(f"{trainer.model.num_parameters():,} parameters, {trained:,} of them trained; vocabulary of {len(tokenizer):,}")
    final = "test" if "test" in corpus else "validation"
    held_out, trainer.eval_dataset = trainer.eval_dataset[final], trainer.eval_dataset["validation"]
    laps.end("reading")
    train(trainer, checkpoint)
    laps.end("training")
    outcome = test(trainer, held_out, final)
    laps.end("testing")
    name, dataset = Path(args.hub_model_id or args.output_dir).name, common.source or "embedded corpus"
    card = {"model_name": name, "dataset_name": common.dataset_name, "tasks": "text-generation", "dataset": dataset}
    finish(trainer, policy, arguments, outcome, laps, card, __file__)


# ---- Test ----


def test(trainer: InstructTrainer, held_out: Dataset, final: str) -> Outcome:
    """Measure the rows of the split `final`, and generate responses for some of them."""
    # in order of length and not shuffled, so that each loss can be matched to its row
    order = np.argsort([len(ids) for ids in held_out["input_ids"]], kind="stable")[::-1]
    trainer.args.train_sampling_strategy = "sequential"
    output = trainer.predict(held_out.select(order))
    back = np.argsort(order)
    nats, is_exact, tokens = (values[back] for values in (*output.predictions, output.label_ids))
    scores = score(nats, is_exact, tokens) | {"tokens": int(tokens.sum())}
    lines = [
        f"loss {scores['loss']:.4f} nats per token of the response, perplexity {scores['perplexity']:.2f}, exact match "
        f"of greedy answers {100 * scores['exact_match']:.1f} % ({final}, {len(nats):,} rows, {tokens.sum():,} tokens)"
    ]
    some = random.Random(trainer.args.seed).sample(range(len(held_out)), min(5, len(held_out)))
    samples = answer(trainer, [held_out[row] for row in some])
    losses = {"losses": (nats / tokens).tolist(), "tokens": tokens.tolist()}
    return Outcome("loss", scores, final, losses, lines, samples, greater_is_better=False)


def answer(trainer: SFTTrainer, rows: list[dict]) -> list[str]:
    """Rows with the model's greedy responses; every process must call this function."""
    tokenizer, texts = trainer.processing_class, []
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model, torch.no_grad():
        model.eval()
        for row in rows:
            prompt = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            ids = model.generate(**prompt, do_sample=False, max_new_tokens=64)[0, prompt["input_ids"].shape[1] :]
            parts = {"prompt": row["prompt"][-1]["content"], "reference": row["completion"][0]["content"]}
            parts["response"] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            texts.append("\n".join(f"{name:9}  {text}" for name, text in parts.items()))
    return texts


if __name__ == "__main__":
    run(main)
