"""What is wrong with files of rows, as people have them: told before a reader guesses."""

import gc
import gzip
import json
import re
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_prune.recipe.splits import CommonArguments, read_file, read_splits

RECORDS = [{"text": f"text {i}", "label": f"l{i % 2}"} for i in range(40)]
TABLE = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in RECORDS)
LINES = "".join(json.dumps(row) + "\n" for row in RECORDS)
UMLAUT = TABLE + "Wer heißt Müller – und wo?,l1\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def refusal(folder, name, content):
    """What is said of a file of this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        read_file(name)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    if "can't be read as csv" in said:  # pandas leaves a file open that it has failed on
        del caught
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return said


@pytest.mark.parametrize(
    ("text", "encoding", "told", "shown"),
    [
        (UMLAUT, "cp1252", "cp1252", "Wer heißt Müller – und wo?"),
        (UMLAUT.replace("–", "-"), "latin-1", "cp1252", "Müller - und wo?"),
        (UMLAUT, "utf-16", "UTF-16", ""),
        (UMLAUT, "utf-16-le", "UTF-16LE", ""),
        (UMLAUT, "utf-16-be", "UTF-16BE", ""),
        (UMLAUT, "utf-32", "UTF-32", ""),
        ("text,label\n" + "Привет мир и вам,да\n" * 9, "cp1251", "cp1251", "Привет мир"),
        ("text,label\n" + "こんにちは世界、元気ですか,l1\n" * 9, "shift_jis", "shift_jis", "こんにちは世界"),
        ("text,label\n" + "你好世界这是一个测试,l1\n" * 9, "gb18030", "gb18030", "你好世界"),
        ("text,label\n" + "안녕하세요 세계,l1\n" * 9, "euc_kr", "euc_kr", "안녕하세요"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_another_encoding_is_named(own_folder, text, encoding, told, shown, suffix):
    text = text if suffix == ".csv" else text.replace(",", "\t")
    said = refusal(own_folder, f"rows{suffix}", text.encode(encoding))
    assert told in said and shown in said and "iconv -f " in said
    assert "Separate columns" not in said


def test_json_in_another_encoding_is_never_read(own_folder):
    rows = [*RECORDS, {"text": "Müller", "label": "l1"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert "Its bytes fit cp1252" in refusal(own_folder, "rows.jsonl", lines.encode("cp1252"))
    assert "rows.jsonl is in UTF-16" in refusal(own_folder, "rows.jsonl", lines.encode("utf-16"))
    text = json.dumps(rows, ensure_ascii=False)
    assert "Its bytes fit cp1252" in refusal(own_folder, "rows.json", text.encode("cp1252"))


def test_a_mark_before_utf_8_is_no_part_of_the_first_name(own_folder):
    for name, text in {"a.csv": TABLE, "b.csv": TABLE.replace("text,", '"text",', 1), "c.jsonl": LINES}.items():
        (own_folder / name).write_text(text, encoding="utf-8-sig")
        assert read_file(name).column_names == ["text", "label"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.encode() + "ü".encode()[:1], "ends within a character: it is cut"),
        (TABLE.replace("text 3", "te\0xt"), "has zero bytes in line 5, which no text has"),
        (b"\n\n", "rows.csv is empty, or can't be read as csv: it has no line."),
        (b"text,label\n", "rows.csv is empty, or can't be read as csv: it has no row below its header."),
        ("text,label,text\na,b,c\n", "rows.csv has several columns called 'text': rename or remove all but one."),
        ("text,label\na,b,c\nd,e,f\n", "names 2 columns (text, label), but its first row has 3 fields"),
        ("text,label\na,b,\nd,e,\n", "names 2 columns (text, label), but its first row has 3 fields"),
        (TABLE + "a,b,c,d\n", "Expected 2 fields in line 42, saw 4"),
        ('text,label\n"never closed,l1\n' + TABLE, "A quote is opened there and never closed"),
        ("text,label\n" + "a,1\n" * 12_000 + "b,pos\n", "A column has numbers first, and text below"),
        (LINES, "rows.csv holds JSON, whatever its name says"),
        (json.dumps(RECORDS), "rows.csv holds JSON, whatever its name says"),
        ("<!DOCTYPE html>\n<html>404</html>\n", "holds a web page or XML"),
        (b"PAR1" + bytes(40), "rows.csv is a Parquet file, whatever its name says"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive, or a workbook of Excel"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (gzip.compress(TABLE.encode())[:-20], "packed by gzip, and cut or damaged"),
        (gzip.compress(UMLAUT.encode("cp1252")), "Its bytes fit cp1252"),
    ],
)
def test_tables_that_are_refused(own_folder, content, message):
    assert message in refusal(own_folder, "rows.csv", content)


def test_names_that_repeat_are_refused_in_every_format(own_folder):
    assert "several columns called 'text'" in refusal(own_folder, "rows.tsv", "text\ttext\na\tb\n")
    pq.write_table(pa.table([pa.array(["a"])] * 2, names=["text", "text"]), "rows.parquet")
    with pytest.raises(ValueError, match="rows.parquet has several columns called 'text'"):
        read_file("rows.parquet")
    assert "Column(/text) was specified twice" in refusal(own_folder, "rows.jsonl", '{"text": "a", "text": "b"}\n' * 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"data": RECORDS}, "is one object that has its records under 'data'"),
        ({"version": "1", "data": RECORDS}, "is one object that has its records under 'data'"),
        ({"data": {"rows": RECORDS}}, "is one object that has its records under 'data.rows'"),
        ({"train": RECORDS, "test": RECORDS}, "under 'train' and 'test': store these alone, each in a file of its own"),
        ({"text": ["a", "b"], "label": [0, 1]}, "is one object with a list for each column (text, label)"),
        ({f"c{i}": [0, 1] for i in range(9)}, "with a list for each column (c0, c1, c2, c3, c4 ...)"),
        ({str(i): row for i, row in enumerate(RECORDS)}, "is one object of objects (under 0, 1, 2 ...)"),
        ({"text": {"0": "a"}, "label": {"0": "b"}}, "is one object of objects (under text, label ...)"),
        ([["a", 1], ["b", 2]], "is a list of something else than records"),
        (["a", "b"], "is a list of something else than records"),
        ("a", "it begins with '\"a\"'"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_nested_json_is_told_of(own_folder, value, message, indent, suffix):
    said = refusal(own_folder, f"rows{suffix}", json.dumps(value, indent=indent))
    assert message in said
    assert "give a list of records, or JSON lines: a record a line" in said


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (json.dumps(RECORDS), 40),
        (json.dumps(RECORDS, indent=2), 40),
        (LINES, 40),
        ("\n" + LINES, 40),
        (json.dumps(RECORDS[0]), 1),
        (json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}), 1),
        (json.dumps({"conversations": [{"from": "human", "value": "a"}]}), 1),
        (json.dumps({"translation": {"en": "a", "de": "b"}}), 1),
        (json.dumps({"tokens": ["a"], "tags": [1]}), 1),
    ],
)
def test_json_of_records_is_read(own_folder, text, rows):
    (own_folder / "rows.json").write_text(text)
    assert len(read_file("rows.json")) == rows


def test_a_table_that_is_packed_is_read(own_folder):
    (own_folder / "rows.csv").write_bytes(gzip.compress(TABLE.encode()))
    assert len(read_file("rows.csv")) == 40
    with pytest.raises(ValueError, match="suffix '.gz' is not known"):
        read_file("rows.csv.gz")


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "it is cut, for a Parquet file ends as it begins"),
        (lambda whole: whole[:-9] + bytes(5) + b"PAR1", "it is damaged; "),
        (
            lambda whole: TABLE.encode(),
            "it is no Parquet file, whatever its name says, but text that begins with 'text,",
        ),
        (lambda whole: b"", "it is no Parquet file, whatever its name says"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_parquet_that_is_none_or_cut(own_folder, cut, message):
    pq.write_table(pa.Table.from_pylist(RECORDS), "whole.parquet")
    said = refusal(own_folder, "rows.parquet", cut((own_folder / "whole.parquet").read_bytes()))
    assert said.startswith("rows.parquet is empty, or can't be read as parquet: ") and message in said


def test_the_files_of_a_folder_are_looked_at(own_folder):
    (own_folder / "set").mkdir()
    (own_folder / "set" / "train.csv").write_bytes(UMLAUT.encode("cp1252"))
    with pytest.raises(ValueError, match=r"dataset_name='set': set.train\.csv is not in UTF-8 \(line 42\)"):
        read_splits(CommonArguments(dataset_name="set"), None)
    (own_folder / "set" / "train.csv").write_text(UMLAUT, encoding="utf-8")
    assert len(read_splits(CommonArguments(dataset_name="set"), None)[0]["train"]) == 41


def test_files_and_folders_are_told_apart(own_folder):
    (own_folder / "rows.csv").write_text(TABLE)
    with pytest.raises(ValueError, match="dataset_name='rows.csv' is a file: give it by --train_file"):
        read_splits(CommonArguments(dataset_name="rows.csv"), None)
    (own_folder / "pictures").mkdir()
    with pytest.raises(ValueError, match="validation_file: pictures is a folder: give one file of it"):
        read_splits(CommonArguments(train_file="rows.csv", validation_file="pictures"), None)
