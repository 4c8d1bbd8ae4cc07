"""What is never shown: secrets, and where files lie on this machine.

Command lines, settings and policies are stored, printed and published: in model cards, results, logs and saved
arguments. All of these ask here, for each value: what is it called, and what does it look like?
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath, PureWindowsPath
from typing import Any

_ALWAYS = r"passw(?:or)?d|passphrase|pwd|secret|credential"  # a secret whatever the value is
_OFTEN = r"token|key|auth(?!or(?!i))"  # a secret unless the value is a number: a count or an id
_SECRET = re.compile(rf"(?P<always>{_ALWAYS})|(?P<often>{_OFTEN})")
_SPECIAL = "bos|eos|pad|unk|sep|cls|mask|stop|image|audio|video|special|decoder_start|forced|suppress"
_HARMLESS = re.compile(  # names of tokenizers, of tokens of a vocabulary, of columns and of keys into a mapping
    rf"tokeniz|token_type|(?:^|_)(?:{_SPECIAL})_(?:\w+_)?tokens?(?:$|_)|tokens_seen|tokens?_ids?$|^tokens$|keyword|"
    r"(?:^|_)(?:history|text|label|image|sort|primary|foreign)_keys?$|metric_key|key_(?:prefix|column|value|map)|"
    r"keys_to_ignore|ignore_keys"
)
_LONGEST = 200  # characters of a name that tell whether it is harmless
_NUMBER = re.compile(r"[-+]?[\d_.,]+(?:e[-+]?\d+)?", re.IGNORECASE)
_SWITCH = frozenset({"", "true", "false", "yes", "no", "none", "null", "auto"})
_WELL_KNOWN = re.compile(  # tokens of the Hub, GitHub, OpenAI and Amazon, which are known by their look
    r"\b(?:hf_(?=[a-zA-Z]*[A-Z0-9])[A-Za-z0-9]{8,}|hf_[a-z]{30,}|api_org_\w{8,}|gh[pousr]_\w{20,}|"
    r"github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{12,})(?![\w])"
)
_USER = re.compile(r"(?<=://)[^\s/@'\"]+@")  # user:password@ of an address
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_NAME = re.compile(r"(?<![\w.-])([\w.-]+)(?:=|['\"]\s*:\s*)")  # of name=value and "name": value, wherever they stand
_VALUE = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&'\"(){}\[\]]+")
_PLACE = re.compile(  # an address, or the start of a path of this machine
    r"(?<![\w.~/\\<-])(?P<start>[Ff]ile:/|[A-Za-z][\w+.-]{1,60}:///|[A-Za-z]:[\\/]|\\{2,4}(?=\w)|~[\w.-]*[/\\]|\.\.?[/\\]|"
    r"/(?=[^\s/]))|[A-Za-z][\w+.-]{1,60}://[^\s'\"<>]*"
)
_BETWEEN = re.compile(r"[\s=,;&'\"(){}\[\]:@]+|//")  # the values of an argument
_END = re.compile(r"[^\s,;'\"()\[\]{}<>|]*")  # of a path within a text


def secret_word(name: str, value: Any = "x") -> str | None:
    """The word that shows a value to be a secret and replaces it, such as "TOKEN"; None where the value is no secret.

    Args:
        name: Of a flag, a field, a variable or a key, such as `--hub_token` or `HF_TOKEN`.
        value: What it is set to. A number or a switch is a count, an id or a setting, whatever its name.
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").strip("_").lower()
    found = _SECRET.search(plain)
    if not found or value is None or isinstance(value, (bool, int, float)):
        return None
    text = str(value).strip().strip("'\"")
    if text.lower() in _SWITCH:
        return None
    if found["often"] and (_HARMLESS.search(plain[-_LONGEST:]) or _NUMBER.fullmatch(text)):
        return None
    return found[0].upper()


def hide(text: str) -> str:
    """`text` without secrets: those with a name, as in `token=...`, and those that are known by their look."""
    if (found := _mapping(text)) is not None:
        hidden = _each("", found, hide)
        return text if hidden == found else json.dumps(hidden, ensure_ascii=False)
    text = _USER.sub("SECRET@", _BEARER.sub(r"\1 SECRET", _WELL_KNOWN.sub("TOKEN", text)))
    hidden, at, shown = list[str](), 0, 0
    while name := _NAME.search(text, at):
        at = name.end()  # a value may be a setting itself, as in model_args=token=...
        # Only the values of possible secrets are read: each value may reach to the end of the text.
        value = _VALUE.match(text, at) if secret_word(name[1]) else None
        word = value and secret_word(name[1], value[0])
        if value and word:
            quote = value[0][0] if value[0][0] in "'\"" else ""
            hidden += [text[shown:at], quote, word, quote]
            at = shown = value.end()
    return "".join([*hidden, text[shown:]])


def public(text: str) -> str:
    """`text` as anybody may see it: without secrets, and with paths of this machine cut to their last part."""
    if (found := _mapping(text)) is not None:
        shown = _each("", found, public)
        return text if shown == found else json.dumps(shown, ensure_ascii=False)
    text = hide(text)
    starts = [found for found in _PLACE.finditer(text) if found["start"]]
    if len(starts) == 1 and starts[0].start() == 0:
        return _last_part(text)  # the whole text is a path, its blanks and commas too
    shown, at = list[str](), 0
    for found in starts:
        if found.start() < at:
            continue
        before = text[found.start() - 1] if found.start() else ""
        end = text.find(before, found.end()) if before and before in "'\"" else -1
        if end < 0:
            end = _END.match(text, found.end()).end()  # type: ignore[union-attr]
        shown += [text[at : found.start()], _last_part(text[found.start() : end])]
        at = end
    return "".join([*shown, text[at:]])


def public_value(name: str, value: Any) -> Any:
    """A setting as anybody may see it, with everything in it.

    Args:
        name: What it is called.
        value: A plain value, a path, or mappings and lists of such.
    """
    return _each(name, value, public)


def hide_arguments(argv: Sequence[str]) -> list[str]:
    """A command line without its secrets, with paths as they are."""
    return _arguments(argv, hide)


def public_arguments(argv: Sequence[str]) -> list[str]:
    """A command line that may be shown: paths of this machine shortened, secrets left out."""
    return _arguments(argv, public)


def hide_values(text: str, argv: Sequence[str]) -> str:
    """What a command has printed, without the secrets of its command line and those that are known by their look.

    Args:
        text: What it has printed. The names of settings in it, as in a traceback, hide nothing.
        argv: The command.
    """
    for part, shown in zip(argv, hide_arguments(argv), strict=True):
        for value in _lost(part, shown):
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "SECRET", text)
    return _USER.sub("SECRET@", _WELL_KNOWN.sub("TOKEN", text))


def holds_secret(name: str, value: Any) -> bool:
    """Whether a text is a secret, or has one in it.

    Args:
        name: What it is called.
        value: Anything; what is no text holds none.
    """
    return isinstance(value, str) and (secret_word(name, value) is not None or hide(value) != value)


def _arguments(argv: Sequence[str], show: Callable[[str], str]) -> list[str]:
    shown, word = [], None
    for part in argv:
        is_flag = part.startswith("-") and not _NUMBER.fullmatch(part)
        flag, sign, value = part.partition("=")
        if is_flag:
            name = flag.lstrip("-")
            word = None if sign else _SECRET.search(name.lower()) and name
            shown.append(f"{flag}={secret_word(name, value) or show(value)}" if sign else show(part))
        else:
            shown.append((word and secret_word(word, part)) or show(part))
    return shown


def _lost(part: str, shown: str) -> list[str]:
    """The values that are in an argument but not in what is shown of it, the longest first."""
    values = {part, part.partition("=")[2], *_BETWEEN.split(part)} if part != shown else set[str]()
    return sorted((value for value in values if value not in shown), key=len, reverse=True)


def _each(name: str, value: Any, show: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _each(str(key), entry, show) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(name, entry, show) for entry in value]
    if isinstance(value, PurePath):
        value = str(value)
    return (secret_word(name, value) or show(value)) if isinstance(value, str) else value


def _mapping(text: str) -> Any:
    """What a text says in JSON, where that is a mapping or a list; None for anything else."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _last_part(path: str) -> str:
    return PureWindowsPath(path.rstrip("/\\")).name or path[:1]
