"""Tokenizers that a recipe trains on its own texts, and those with language codes."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers


def byte_level_bpe(
    texts: Iterable[str], vocab_size: int, special: Sequence[str], begins_with_space: bool = False
) -> Tokenizer:
    """A byte-level BPE tokenizer: no character is unknown to it, and each digit is a token.

    Args:
        texts: To train it on.
        vocab_size: Entries at most.
        special: Its special tokens, which get the first numbers.
        begins_with_space: Whether a text gets a space before it, so that its first word is the token that it is
            elsewhere; texts are then normalized (NFC), too.
    """
    bpe = Tokenizer(models.BPE())
    if begins_with_space:
        bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    bpe.pre_tokenizer = pre_tokenizers.Sequence(split)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def set_languages(model: Any, tokenizer: Any, source: str, target: str) -> None:
    """Where a tokenizer has language codes, tell it which, and the model which one to begin with.

    Args:
        model: Gets the code of the target.
        tokenizer: Gets both.
        source: Code of the language that is read.
        target: Code of the language that is written.

    Raises:
        ValueError: A code that the tokenizer does not know.
    """
    if getattr(tokenizer, "src_lang", None) is None:
        return
    for side, code in (("source", source), ("target", target)):
        token = next((token for token in (code, f"__{code}__") if token in tokenizer.all_special_tokens), None)
        if token is None:
            near = difflib.get_close_matches(code, tokenizer.all_special_tokens, n=3, cutoff=0.4)
            raise ValueError(f"{side}_lang={code!r}: the tokenizer has no such code; near ones: {', '.join(near)}.")
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    start = tokenizer.convert_tokens_to_ids(token)
    if tokenizer(text_target="a")["input_ids"][0] == start:
        model.generation_config.forced_bos_token_id = start
    else:  # the first mBART: its targets end with the code, and its decoder starts from it
        model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = start
