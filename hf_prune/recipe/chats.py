"""Prompts and the responses to learn, from columns of texts or from chats, whose last message is the response."""

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset, Features, Value

from .columns import find_text, keep_rows

CHATS = ("messages", "conversations")  # columns
ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names
SPEAKERS = " or ".join(["assistant", *(name for name, role in ROLES.items() if role == "assistant")])


def read_rows(
    rows: Dataset, recipe: Any, name: str, say: Callable[[str], None] = print, carried: Sequence[str] = ()
) -> Dataset:
    """The columns `prompt` and `completion`, lists of messages, and `carried`; rows that lack one are left out.

    Args:
        rows: As they are in their file.
        recipe: Names the columns: `prompt_column`, `response_column`, and `context_column`, which may be None. A column
            of chats is read where the first two are not there.
        name: What to call the rows in a message.
        say: Tells how many are left out.
        carried: Columns that stay as they are.

    Raises:
        ValueError: A column that is not there or holds something else, or no row with a prompt and a response.
    """

    def from_columns(row):
        texts = [(text or "").strip() for text in map(row.get, columns)]
        request = "\n\n".join(filter(None, texts[1:])) if texts[1] else ""
        messages = {"prompt": ("user", request), "completion": ("assistant", texts[0])}
        return {side: [{"role": role, "content": text}] for side, (role, text) in messages.items()}

    def from_chat(row):
        return read_chat(row[chats[0]], f"{chats[0]}: {name}")

    chats = [column for column in CHATS if column in rows.column_names]
    if chats and not {recipe.prompt_column, recipe.response_column} <= set(rows.column_names):
        convert, whole = from_chat, f"text in every message, two or more, the last one by {SPEAKERS}"
    else:
        convert, whole = from_columns, "a prompt and a response"
        flags = ["response_column", "prompt_column", "context_column"]
        columns = [find_text(rows, flag, getattr(recipe, flag), name) for flag in flags if getattr(recipe, flag)]
    messages = [{"role": Value("string"), "content": Value("string")}]
    sides = {"prompt": messages, "completion": messages}
    features = Features(sides | {column: rows.features[column] for column in carried})
    others = [column for column in rows.column_names if column not in carried]
    found = rows.map(convert, remove_columns=others, features=features)

    def is_whole(row):
        return all(row[side] and all(message["content"] for message in row[side]) for side in sides)

    return keep_rows(found, is_whole, whole, name, say)


def read_chat(chat: Any, where: str) -> dict[str, list[dict[str, str]]]:
    """The messages of a chat as `prompt` and `completion`, which is empty where the last one is no response.

    Args:
        chat: A list of {role, content}, or of {from, value}; None = an empty one.
        where: The column and the rows, for a message.

    Raises:
        ValueError: Something else.
    """
    chat = chat or []
    parts = [_read_message(message) for message in chat] if isinstance(chat, list) else [None]
    texts = [(ROLES.get(part[0], part[0]), (part[1] or "").strip()) for part in parts if part is not None]
    if len(texts) < len(parts):
        raise ValueError(
            f"{where} has {str(chat)[:200]} there; a row must be a list of "
            "{'role': 'user' or 'assistant' ..., 'content': text}."
        )
    messages = [{"role": role, "content": text} for role, text in texts if text or role != "system"]
    is_answered = bool(messages) and messages[-1]["role"] == "assistant"
    return {"prompt": messages[:-1], "completion": messages[-1:] if is_answered else []}


def _read_message(message: Any) -> tuple[str, str | None] | None:
    """The role and the text of a message; None where it is none."""
    for role, text in (("role", "content"), ("from", "value")):
        if isinstance(message, dict) and {role, text} <= set(message) and isinstance(message[role], str):
            return (message[role], message[text]) if isinstance(message[text], str | None) else None
    return None
