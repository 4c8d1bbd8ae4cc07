"""Fine-tune a causal language model on instructions and responses that still teach, and account for the rest.

Without arguments: an embedded corpus (sums, dates, units, lists, prices, countries ... as instructions), a small Llama
from scratch, nothing downloaded, under two minutes on two CPU cores:

    accelerate launch recipes/instruct.py

Real corpora are files (Parquet, JSON lines, CSV, TSV) or a data set of the Hub, with a column for the prompt and one
for the response, or a column `messages` or `conversations` whose last message is the response. A pretrained model,
whole or by LoRA:

    accelerate launch recipes/instruct.py --model_name_or_path Qwen/Qwen2.5-0.5B --lora_rank 8 \
        --train_file train.parquet --validation_file validation.parquet --prompt_column question \
        --response_column answer
    accelerate launch --multi_gpu --num_processes N recipes/instruct.py --train_file ...

The loss is that of the response's tokens alone, in training and on the held-out rows. `--packing True` joins rows into
packs of --max_length tokens: a row of the policy, of its budget and of --history is then a pack.

`--policy uniform --keep 1` is the baseline on all rows, `--policy none` the plain SFTTrainer; `--help` lists all flags.
The same command again goes on from the last checkpoint of a run that was interrupted, and refuses a finished one.
"""

import datetime
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from babel import Locale, dates, numbers, units
from datasets import Dataset, DatasetDict, Features, Value
from num2words import num2words
from peft import LoraConfig
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.utils import is_torch_bf16_gpu_available
from trl import SFTConfig, SFTTrainer
from trl.models import unwrap_model_for_generation

from hf_prune import pruned
from hf_prune.recipe.arguments import parse
from hf_prune.recipe.session import Outcome, arguments_of, check_metric, find_checkpoint, finish, loading, run, train
from hf_prune.recipe.splits import CommonArguments, find_text, keep_rows, load_splits


@dataclass
class RecipeArguments:
    """What to learn, with which model.

    Args:
        prompt_column: Column of the prompt (GSM8K: question); where there is none, a column `messages` is read (role
            and content), or `conversations` (from and value, as ShareGPT's).
        response_column: Column of the response (GSM8K: answer).
        context_column: Column of text that goes with the prompt, and may be empty (Alpaca: input; Dolly: context).
        lora_rank: Train low-rank adapters of this rank on all linear layers, and leave a pretrained model as it is.
        model_size: Size of a model from scratch: tiny, small or base.
        vocab_size: Entries of a tokenizer from scratch.
    """

    prompt_column: str = "instruction"
    response_column: str = "response"
    context_column: str | None = None
    lora_rank: int | None = None
    model_size: str = "tiny"
    vocab_size: int = 4000


FROM_SCRATCH = dict(
    policy="infobatch",  # its weights keep the gradient unbiased
    unit="tokens",  # for policies with a budget: a short response left out saves little
    output_dir="instruct-output",
    num_train_epochs=5,
    per_device_train_batch_size=8,  # a small corpus, grouped by length, wants many steps; chosen on a CPU
    per_device_eval_batch_size=64,
    learning_rate=3e-3,  # a small model bears it
    lr_scheduler_type="cosine",
    warmup_steps=0.1,  # share of training
    weight_decay=0.1,  # Brown et al. 2020, appendix B
    adam_beta2=0.95,  # Brown et al. 2020, appendix B
    train_sampling_strategy="group_by_length",  # else half of what is computed is padding
    max_length=512,
    completion_only_loss=True,
    eval_packing=False,  # held-out rows are measured one by one
    gradient_checkpointing=False,  # a small model has the memory
    bf16=is_torch_bf16_gpu_available(),
    dataloader_pin_memory=torch.accelerator.is_available(),
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    load_best_model_at_end=True,
    metric_for_best_model="loss",
    logging_steps=50,
)
FINE_TUNING = dict(  # for a model that knows the language already
    learning_rate=2e-5,  # TRL's
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
LORA_ALPHA = 32  # with which the best learning rate hardly depends on the rank: ibid.

SIZES = {  # width, layers, heads, inner width of the feed-forward layers (8/3 of the width: Touvron et al. 2023)
    "tiny": (128, 3, 4, 352),
    "small": (256, 4, 8, 704),
    "base": (512, 8, 8, 1376),
}
TEMPLATE = (  # for a tokenizer that has none; nothing follows the end of a response, so that nothing more is learnt
    "{{ bos_token }}{% for message in messages %}{{ ('' if loop.first else '\\n') + '<|' + message['role'] + '|>\\n' }}"
    "{{ message['content'] + (eos_token if message['role'] == 'assistant' else '') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|assistant|>\\n' }}{% endif %}"
)

CHATS = ("messages", "conversations")  # columns
ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names

# ---- The embedded corpus ----

WORDS = (
    "apple bread cloud door eagle forest garden house island jacket kitchen lemon mountain night orange piano queen "
    "river stone table uncle violin window yellow zebra bridge candle dragon engine flower guitar hammer"
).split()
COUNTRIES = (
    "AR AT AU BE BR CA CH CL CN CZ DE DK EG ES FI FR GB GR HU IE IN IS IT JP KE MX NL NO NZ PE PL PT SE TR US ZA"
).split()
LANGUAGES = "de es fr it nl pt sv".split()
UNITS = (  # large, small, how many of the small make a large one
    "length-kilometer length-meter 1000|length-meter length-centimeter 100|mass-kilogram mass-gram 1000"
    "|duration-hour duration-minute 60|duration-minute duration-second 60|duration-day duration-hour 24"
    "|volume-liter volume-milliliter 1000|duration-week duration-day 7"
).split("|")
TASKS = """sum|What is {a} plus {b}?|Add {b} to {a}.
words|Write {number} in words.|Spell out the number {number}.
digits|Write "{spelled}" in digits.|Which number is {spelled}?
reverse|Reverse this list: {list}.|Say these words from last to first: {list}.
sort|Sort these words: {list}.|Put {list} in alphabetical order.
last|What is the last word of this list: {list}?|Name the last of {list}.
count|How many words are in this list: {list}?|Count these words: {list}.
date|Write {iso} as a date in {language}.|How is {iso} written out in {language}?
weekday|Which day comes after {weekday}?|What day is it on the day after {weekday}?
month|Which month has the number {month}?|Name month {month} of the year.
price|Write {amount} {currency} as a price in {language}.|Format {amount} {currency} for a reader of {language}.
unit|Convert {large} to {small}.|How many {small} are {large}?
country|What is {country} called in {language}?|Translate {country} into {language}.
percent|Write {share} as a percentage.|How many percent is {share}?"""


def make_row(kind: str, phrases: list[str], rng: random.Random) -> dict[str, str]:
    """A random instruction of a kind, and the response to it."""
    english = Locale("en")
    weekdays, months = (list(getattr(english, names)["format"]["wide"].values()) for names in ("days", "months"))
    a, b, number = rng.randint(1, 99), rng.randint(1, 99), rng.randint(1, rng.choice([20, 100, 1000, 10_000]))
    words, language, country = rng.sample(WORDS, rng.randint(2, 5)), rng.choice(LANGUAGES), rng.choice(COUNTRIES)
    day = datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(30_000))
    amount, currency = rng.randint(100, 99_999) / 100, rng.choice(["EUR", "USD", "GBP"])
    large, small, times = rng.choice(UNITS).split()
    quantity = rng.randint(2, rng.choice([9, 30, 99]))
    slots = {
        "a": a,
        "b": b,
        "number": number,
        "spelled": num2words(number),
        "list": ", ".join(words),
        "iso": day.isoformat(),
        "weekday": weekdays[a % 7],
        "month": a % 12 + 1,
        "amount": f"{amount:.2f}",
        "currency": currency,
        "large": units.format_unit(quantity, large, locale=english),
        "small": units.get_unit_name(small, locale=english),
        "country": english.territories[country],
        "language": english.languages[language],
        "share": b / 100,
    }
    response = {
        "sum": lambda: str(a + b),
        "words": lambda: num2words(number),
        "digits": lambda: str(number),
        "reverse": lambda: ", ".join(words[::-1]),
        "sort": lambda: ", ".join(sorted(words)),
        "last": lambda: words[-1],
        "count": lambda: str(len(words)),
        "date": lambda: dates.format_date(day, "long", language),
        "weekday": lambda: weekdays[(a + 1) % 7],
        "month": lambda: months[a % 12],
        "price": lambda: numbers.format_currency(amount, currency, locale=language),
        "unit": lambda: units.format_unit(quantity * int(times), small, locale=english),
        "country": lambda: Locale(language).territories[country],
        "percent": lambda: numbers.format_percent(b / 100, locale=english),
    }[kind]()
    return {"instruction": rng.choice(phrases).format(**slots), "response": response}


def embedded_corpus(rows: int = 4000, seed: int = 0) -> DatasetDict:
    """Instructions that a program can answer, filled in by Babel and num2words.

    As in real corpora, few kinds of instruction make most of the rows, some are far harder than others, and the
    training split repeats itself. A checksum of the instruction chooses the split, so none is in two of them.

    Args:
        rows: Rows of the training split; validation has a twentieth and test a tenth of that.
        seed: Another seed gives other instructions.

    Returns:
        Splits train, validation and test with columns `instruction` and `response`.
    """
    rng = random.Random(seed)
    kinds = [line.split("|") for line in TASKS.splitlines()]
    frequency = [1 / (rank + 4) for rank in range(len(kinds))]  # Zipf's law, flattened
    sizes = {"train": rows, "validation": rows // 20, "test": rows // 10}
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in sizes}
    while any(len(splits[split]) < size for split, size in sizes.items()):
        kind, *phrases = rng.choices(kinds, frequency)[0]
        row = make_row(kind, phrases, rng)
        bucket = zlib.crc32(row["instruction"].encode()) % 20
        split = "test" if bucket < 2 else "validation" if bucket == 2 else "train"
        if len(splits[split]) < sizes[split] and (split == "train" or row not in splits[split]):
            splits[split].append(row)
    return DatasetDict({split: Dataset.from_list(found) for split, found in splits.items()})


# ---- Data ----


def read_rows(rows: Dataset, recipe: RecipeArguments, name: str, say=print, carried: Sequence[str] = ()) -> Dataset:
    """The columns `prompt` and `completion`, lists of messages, and `carried`; rows that lack one are left out.

    Raises:
        ValueError: A column that is not there or holds something else, or no row with a prompt and a response.
    """

    def from_messages(row):
        chat = row[chats[0]] or []
        parts = [read_message(message) for message in chat] if isinstance(chat, list) else [None]
        if None in parts:
            raise ValueError(
                f"{chats[0]}: {name} has {str(chat)[:200]} there; a row must be a list of "
                "{'role': 'user' or 'assistant' ..., 'content': text}."
            )
        texts = [(ROLES.get(role, role), (text or "").strip()) for role, text in parts]
        messages = [{"role": role, "content": text} for role, text in texts if text or role != "system"]
        answered = bool(messages) and messages[-1]["role"] == "assistant"
        return {"prompt": messages[:-1], "completion": messages[-1:] if answered else []}

    def read_message(message):
        for role, text in (("role", "content"), ("from", "value")):
            if isinstance(message, dict) and {role, text} <= set(message) and isinstance(message[role], str):
                return (message[role], message[text]) if isinstance(message[text], str | None) else None

    def from_columns(row):
        texts = [(text or "").strip() for text in map(row.get, columns)]
        request = "\n\n".join(filter(None, texts[1:])) if texts[1] else ""
        messages = {"prompt": ("user", request), "completion": ("assistant", texts[0])}
        return {side: [{"role": role, "content": text}] for side, (role, text) in messages.items()}

    chats = [column for column in CHATS if column in rows.column_names]
    if chats and not {recipe.prompt_column, recipe.response_column} <= set(rows.column_names):
        speakers = " or ".join(["assistant", *(other for other, role in ROLES.items() if role == "assistant")])
        convert, whole = from_messages, f"text in every message, two or more, the last one by {speakers}"
    else:
        convert, whole = from_columns, "a prompt and a response"
        flags = ["response_column", "prompt_column", "context_column"]
        columns = [find_text(rows, flag, getattr(recipe, flag), name) for flag in flags if getattr(recipe, flag)]
    messages = [{"role": Value("string"), "content": Value("string")}]
    sides = {"prompt": messages, "completion": messages}
    features = Features(sides | {column: rows.features[column] for column in carried})
    others = [column for column in rows.column_names if column not in carried]
    found = rows.map(convert, remove_columns=others, features=features)
    return keep_rows(
        found,
        lambda row: all(row[side] and all(message["content"] for message in row[side]) for side in sides),
        whole,
        name,
        say,
    )


# ---- Model ----


def new_tokenizer(texts, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: no character is unknown to it, each digit is a token, and so is each role."""
    bpe = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    bpe.pre_tokenizer = pre_tokenizers.Sequence(split)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", *(f"<|{role}|>" for role in ("system", "user", "assistant"))]
    options = {"special_tokens": special, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options))
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=special[3:], **names)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast, max_length: int) -> LlamaForCausalLM:
    """A Llama with random weights, one embedding for input and output; ValueError for unknown sizes."""
    if size not in SIZES:
        raise ValueError(f"model_size={size!r} is not known; give one of {', '.join(SIZES)}.")
    width, layers, heads, inner = SIZES[size]
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


# ---- Metric ----


class InstructTrainer(pruned(SFTTrainer)):
    """Measures held-out rows one by one, where the stock trainer has means over batches."""

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(B,) nats over the row's target tokens, (B,) whether all are the likeliest ones; (B,) how many they are."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        is_target = outputs.label_mask
        values = torch.stack([-outputs.log_probs.float() * is_target, ~outputs.is_top1 & is_target, is_target], -1)
        if "position_ids" in inputs:  # rows joined into one sequence: each begins at position 0
            row = (inputs["position_ids"][0] == 0).cumsum(0) - 1
            sums = values.new_zeros(row.max() + 1, 3).index_add(0, row[1:], values[0])
            sums = sums[sums[:, 2] > 0]  # what fills a batch up begins at 0, too, and has no target
        else:
            sums = values.sum(1)
        nats, misses, tokens = sums.unbind(1)
        return None, (nats, misses == 0), tokens.long()


def score(nats, is_exact, tokens) -> dict[str, float]:
    """What rows' nats, hits and tokens, (N,) each, come to: loss and perplexity by token, and the share of hits."""
    loss = float(np.sum(nats, dtype=np.float64) / np.sum(tokens, dtype=np.float64))
    return {"loss": loss, "perplexity": float(np.exp(loss)), "exact_match": float(np.mean(is_exact))}


# ---- The run ----


def describe(rows: Dataset, split: str, read: int, args: SFTConfig) -> str:
    """How many of the rows that were read are left, and how many fill the length, in words.

    Raises:
        ValueError: None is left.
    """
    if not len(rows):
        raise ValueError(f"max_length={args.max_length} leaves no row of split {split} a response; give a larger one.")
    if "seq_lengths" in rows.column_names:
        return f"{len(rows):,} {split} packs of {read:,} rows"
    words = [f"{len(rows):,} {split} rows"]
    if len(rows) < read:
        words.append(f"{read - len(rows):,} more are left out, for their prompt fills max_length")
    if full := sum(len(ids) == args.max_length for ids in rows["input_ids"][:]):
        words.append(f"{full:,} fill max_length={args.max_length} and may be cut")
    return "; ".join(words)


def answer(trainer: SFTTrainer, rows: list[dict]) -> list[str]:
    """Rows beside the trainer's greedy responses; every process must call it."""
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


def main(argv: list[str] | None = None) -> None:
    begin = time.perf_counter()
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
    arguments = arguments_of(common, recipe, args)
    checkpoint = find_checkpoint(args, policy, common, recipe)
    say = print if args.process_index == 0 else lambda *texts: None
    set_seed(args.seed)

    # Data
    with args.main_process_first(desc="read the corpus"):
        seed = args.data_seed or 0  # --seed leaves the rows alone
        corpus = load_splits(
            common,
            embedded_corpus,
            lambda rows, name: read_rows(
                rows, recipe, name, say, common.carried(rows, "prompt", "completion", "length")
            ),
            seed,
        )
    final = "test" if "test" in corpus else "validation"

    # Model
    if common.model_name_or_path:
        with loading(common.model_name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(
                common.model_name_or_path, trust_remote_code=args.trust_remote_code
            )
        model = common.model_name_or_path  # which the trainer loads, in float32
    else:
        texts = (m["content"] for row in corpus["train"] for side in ("prompt", "completion") for m in row[side])
        tokenizer = new_tokenizer(texts, recipe.vocab_size)
        model = new_model(recipe.model_size, tokenizer, args.max_length or 2048)
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE
    adapter = None
    if recipe.lora_rank:
        adapter = LoraConfig(
            r=recipe.lora_rank, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )

    # Train
    with loading(str(common.model_name_or_path), SafetensorError):
        trainer = InstructTrainer(
            model=model,
            args=args,
            policy=policy,
            history=common.history,
            history_key=common.history_key,
            train_dataset=corpus["train"],
            eval_dataset={split: rows for split, rows in corpus.items() if split != "train"},  # tokenized with train
            processing_class=tokenizer,
            peft_config=adapter,
            compute_metrics=lambda outputs: score(*outputs.predictions, outputs.label_ids),
            callbacks=common.callbacks(),
        )
    for split, rows in {"train": trainer.train_dataset, **trainer.eval_dataset}.items():
        say(describe(rows, split, len(corpus[split]), args))
    trained = trainer.model.num_parameters(only_trainable=True)
    say(f"{trainer.model.num_parameters():,} parameters, {trained:,} of them trained; vocabulary of {len(tokenizer):,}")
    held_out, trainer.eval_dataset = trainer.eval_dataset[final], trainer.eval_dataset["validation"]
    read = time.perf_counter()
    train(trainer, checkpoint)
    trained = time.perf_counter()

    # Test: in order of length, and not shuffled, so that each loss can be put beside its row
    order = np.argsort([len(ids) for ids in held_out["input_ids"]], kind="stable")[::-1]
    args.train_sampling_strategy = "sequential"
    output = trainer.predict(held_out.select(order))
    back = np.argsort(order)
    nats, is_exact, tokens = (values[back] for values in (*output.predictions, output.label_ids))
    scores = score(nats, is_exact, tokens) | {"tokens": int(tokens.sum())}
    seconds = {"reading": read - begin, "training": trained - read, "testing": time.perf_counter() - trained}

    # Report
    lines = [
        f"loss {scores['loss']:.4f} nats per token of the response, perplexity {scores['perplexity']:.2f}, exact match "
        f"of greedy answers {100 * scores['exact_match']:.1f} % ({final}, {len(nats):,} rows, {tokens.sum():,} tokens)"
    ]
    some = random.Random(args.seed).sample(range(len(held_out)), min(5, len(held_out)))
    samples = answer(trainer, [held_out[row] for row in some])
    losses = {"losses": (nats / tokens).tolist(), "tokens": tokens.tolist()}
    outcome = Outcome("loss", scores, final, losses, lines, samples, greater_is_better=False)
    dataset = common.source or "embedded corpus"
    name = Path(args.hub_model_id or args.output_dir).name
    card = {"model_name": name, "dataset_name": common.dataset_name, "tasks": "text-generation", "dataset": dataset}
    finish(trainer, policy, arguments, outcome, seconds, card, __file__)


if __name__ == "__main__":
    run(main)
