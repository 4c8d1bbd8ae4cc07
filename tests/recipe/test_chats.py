"""Prompts and responses, from columns and from chats."""

from dataclasses import dataclass

import pytest
from datasets import Dataset

from hf_prune.recipe.chats import read_rows


@dataclass
class Flags:
    """The flags that name columns."""

    prompt_column: str = "instruction"
    response_column: str = "response"
    context_column: str | None = None


def messages(*texts):
    return [{"role": role, "content": text} for role, text in texts]


def test_columns_become_messages():
    rows = {"q": ["Add.", "Hi! ", ""], "more": ["1 2", None, "3 4"], "a": ["3", "Hi.", "7"], "id": [1, 2, 3]}
    found = read_rows(Dataset.from_dict(rows), Flags("q", "a", "more"), "it").to_list()
    assert [row["prompt"] for row in found] == [messages(("user", text)) for text in ("Add.\n\n1 2", "Hi!")]
    assert [row["completion"] for row in found] == [messages(("assistant", text)) for text in ("3", "Hi.")]


def test_the_last_message_is_the_response():
    talk = messages(
        ("system", "Be brief."), ("user", "Hi!"), ("assistant", "Hi."), ("user", "Bye!"), ("assistant", ".")
    )
    unanswered, empty = talk[:4], []
    said = []
    rows = Dataset.from_list([{"messages": found} for found in (talk, unanswered, empty)])
    assert read_rows(rows, Flags(), "it", said.append).to_list() == [{"prompt": talk[:4], "completion": talk[4:]}]
    whole = "text in every message, two or more, the last one by assistant or gpt"
    assert said == [f"it: 2 of 3 rows are left out, for only those with {whole} can serve."]


def test_rows_without_a_prompt_or_a_response():
    rows = Dataset.from_dict({"instruction": ["a", "b", " ", "d"], "response": ["A", None, "C", ""]})
    said = []
    assert len(read_rows(rows, Flags(), "it", said.append)) == 1
    assert said == ["it: 3 of 4 rows are left out, for only those with a prompt and a response can serve."]
    with pytest.raises(ValueError, match=r"it has no row with a prompt and a response \(3 rows read\)"):
        read_rows(rows.select([1, 2, 3]), Flags(), "it")


@pytest.mark.parametrize("flag", ["prompt_column", "response_column", "context_column"])
def test_missing_column_is_named_with_those_there_are(flag):
    rows = Dataset.from_dict({"instruction": ["a"], "response": ["A"]})
    with pytest.raises(ValueError, match=rf"{flag}='nothing': it has no such column; it has instruction, response\."):
        read_rows(rows, Flags(**{flag: "nothing"}), "it")


@pytest.mark.parametrize(
    "found",
    [
        [{"from": "human", "text": "Hi!"}],
        [{"role": None, "content": "Hi!"}],
        "a text",
        [{"role": "user", "content": [{"type": "text", "text": "Hi!"}]}],
    ],
)
def test_messages_of_another_form_are_shown_with_the_one_to_give(found):
    rows = Dataset.from_list([{"messages": found}])
    with pytest.raises(ValueError, match=r"messages: it has .* there; a row must be a list of \{'role': 'user'"):
        read_rows(rows, Flags(), "it")


def test_chats_of_sharegpt():
    talks = [[{"from": "human", "value": "1"}, {"from": "gpt", "value": "2", "weight": 1}]]
    talks.append([{"from": "system", "value": ""}, {"from": "user", "value": "3"}, {"from": "gpt", "value": "4"}])
    rows = Dataset.from_list([{"id": i, "conversations": talk} for i, talk in enumerate(talks)])
    assert read_rows(rows, Flags(), "it").to_list() == [
        {"prompt": messages(("user", "1")), "completion": messages(("assistant", "2"))},
        {"prompt": messages(("user", "3")), "completion": messages(("assistant", "4"))},
    ]


def test_rows_may_begin_with_many_that_have_no_answer():
    rows = [{"messages": messages(("user", "Hi!"))}] * 1500 + [
        {"messages": messages(("user", "1"), ("assistant", "2"))}
    ]
    assert len(read_rows(Dataset.from_list(rows), Flags(), "it", lambda text: None)) == 1


def test_messages_without_text_are_told_apart():
    """An empty system turn says nothing; a turn that calls a tool has no text to learn from; blanks are none."""
    said, rows = (
        [],
        [
            messages(("system", ""), ("user", "1"), ("assistant", " 2 ")),
            messages(("user", "1"), ("assistant", None), ("tool", "2"), ("assistant", "3")),
            messages(("user", "1"), ("assistant", "  ")),
            messages(("user", "1"), ("bot", "2")),
        ],
    )
    found = read_rows(Dataset.from_list([{"messages": row} for row in rows]), Flags(), "it", said.append)
    assert found.to_list() == [{"prompt": messages(("user", "1")), "completion": messages(("assistant", "2"))}]
    (text,) = said
    assert "3 of 4 rows are left out, for only those with text in every message, two or more" in text


def test_a_column_of_numbers_is_refused():
    rows = Dataset.from_dict({"instruction": ["1 + 1"], "response": [2]})
    with pytest.raises(ValueError, match=r"response_column='response': it has Value\('int64'\) there, no text"):
        read_rows(rows, Flags(), "it")
