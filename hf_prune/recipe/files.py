"""What is wrong with a file of rows, reported before it is read: readers guess, and some guesses are silently wrong."""

import csv
import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

_GZIP = b"\x1f\x8b"  # the readers unpack it themselves
_BEGINNINGS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a ZIP archive, or a workbook of Excel",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel",
    b"SQLite format 3": "an SQLite database",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"version https://git-lfs": "the pointer of Git LFS to a file (fetch it: git lfs pull)",
}
_MARKS = {  # at the start of a file; the longer ones first
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_HAN = "一-鿿　-〿！-～"
_SCRIPTS = (  # encodings, and nearly all characters beyond ASCII that their texts have
    ("cp1251", "А-яЁё«»—–№…"),
    ("shift_jis", f"ぁ-ヿ{_HAN}"),
    ("euc_kr", "가-힣"),
    ("gb18030", _HAN),
    ("big5", _HAN),
    ("cp1253", "Ά-ώ«»"),
    ("cp1255", "א-ת"),
    ("cp1256", "ء-ي،؟"),
)
_WESTERN = 0.3  # largest share of letters beyond ASCII, in languages of the Latin alphabet
_SAMPLE = 2**20  # bytes that are read at once, and from which an encoding is guessed
_SHOWN = 40  # characters of a text in a message


def check_file(path: Path) -> None:
    """Refuse a file that a reader would fail on or misread, judged by how its name ends.

    Raises:
        ValueError: Says what is wrong and how to mend it.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        check_parquet(path)
    elif suffix in (".json", ".jsonl"):
        check_json(path)
    elif suffix == ".tsv":
        check_table(path, "\t", csv.QUOTE_NONE)
    elif suffix == ".csv":
        check_table(path, ",", csv.QUOTE_MINIMAL)


def unread(path: str | Path, kind: str, reason: str) -> ValueError:
    """The error for a file that gives no rows."""
    reason = " ".join(reason.split()).rstrip(".")
    return ValueError(f"{path} is empty, or can't be read as {kind}: {reason}.")


def check_parquet(path: Path) -> None:
    """Refuse a file that is not a complete Parquet file, or has two columns with the same name.

    Raises:
        ValueError: Says which of the two.
    """
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(-min(4, path.stat().st_size), 2)
        tail = file.read()
    if not head.startswith(b"PAR1"):
        raise unread(path, "parquet", f"it is no Parquet file, whatever its name says{_but(head)}")
    if tail != b"PAR1":
        raise unread(path, "parquet", "it is cut, for a Parquet file ends as it begins, with PAR1; copy it again")
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise unread(path, "parquet", f"it is damaged; {error}") from error
    _check_names(path, names)


def check_table(path: Path, separator: str, quoting: Literal[0, 3]) -> None:
    """Refuse a text table if a reader would guess its encoding, header or width wrongly.

    Args:
        path: The file.
        separator: Separator of its columns.
        quoting: Constant of the `csv` module.

    Raises:
        ValueError: Says what is wrong and how to mend it.
    """
    head = _check_text(path)
    if re.match(rb"\s*(\{\s*\"|\[\s*[\[{])", head):
        raise ValueError(f"{path} holds JSON, whatever its name says: call it .json, or .jsonl with a record a line.")
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        raise ValueError(f"{path} holds a web page or XML, whatever its name says: download the file itself.")
    with _open(path) as file:
        lines = (line.decode("utf-8-sig") for line in file)
        records = filter(None, csv.reader(lines, delimiter=separator, quoting=quoting, strict=False))
        try:
            found = list(itertools.islice(records, 2))
        except csv.Error:  # a field that is too long for this reader, or a quote that is never closed
            return
    if len(found) < 2:
        raise unread(path, "csv", f"it has no {'row below its header' if found else 'line'}")
    names = found[0]
    _check_names(path, filter(str.strip, names))
    if 1 < len(names) < len(found[1]):
        raise ValueError(
            f"{path} names {len(names)} columns ({', '.join(names)}), but its first row has {len(found[1])} fields: "
            "name them all, or remove the separator at the ends of the lines."
        )


def check_json(path: Path) -> None:
    """Refuse JSON that is neither a list of records nor one record per line.

    Raises:
        ValueError: Says what it is, and where the records are.
    """
    head = _check_text(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    wanted = "give a list of records, or JSON lines: a record a line"
    if not head:
        raise unread(path, "json", "it has no record")
    if head[:1] not in (b"{", b"["):
        start = head.splitlines()[0][:_SHOWN].decode("utf-8", "replace")
        raise unread(path, "json", f"whatever its name says, it begins with {start!r}; {wanted}")
    if head[:1] == b"[" and not re.match(rb"\[\s*[{\]]", head):
        raise ValueError(f'{path} is a list of something else than records; {wanted}, such as {{"text": ...}}.')
    found = _only_object(path) if head[:1] == b"{" else None
    if found is None:
        return
    if inside := list(_records_in(found)):
        keys = " and ".join(map(repr, inside))
        more = "" if len(inside) == 1 else ", each in a file of its own"
        raise ValueError(f"{path} is one object that has its records under {keys}: store these alone{more}; {wanted}.")
    values = list(found.values())
    plain = all(isinstance(value, list) and not any(isinstance(one, dict) for one in value) for value in values)
    if plain and len(set(map(len, values))) == 1 and len(values[0]) > 1:
        names = ", ".join(list(found)[:5]) + " ..." * (len(found) > 5)
        raise ValueError(f"{path} is one object with a list for each column ({names}); {wanted}.")
    if len(values) > 1 and all(isinstance(value, dict) for value in values):
        raise ValueError(f"{path} is one object of objects (under {', '.join(list(found)[:3])} ...); {wanted}.")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    return gzip.open(path) if is_packed else path.open("rb")  # pyright: ignore[reportReturnType]


def _but(head: bytes) -> str:
    """What a file is instead, as the end of a sentence; empty if that is not known."""
    found = next((what for start, what in _BEGINNINGS.items() if head.startswith(start)), None)
    if found is None and head and head.isascii() and b"\0" not in head:
        found = f"text that begins with {head[:_SHOWN].decode().splitlines()[0]!r}"
    return f", but {found}" if found else ""


def _check_names(path: Path, names: Any) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} has several columns called {repeated[0]!r}: rename or remove all but one.")


def _check_text(path: Path) -> bytes:
    """The start of a text file that is in UTF-8.

    Raises:
        ValueError: It is in another encoding, which the message names, or is not text.
    """
    with path.open("rb") as file:
        start = file.read(64)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            raise ValueError(f"{path} is in {encoding}: {_convert(path, encoding)}.")
    if what := next((what for begins, what in _BEGINNINGS.items() if start.startswith(begins)), None):
        raise ValueError(f"{path} is {what}, whatever its name says.")
    try:
        with _open(path) as file:
            head, before = b"", 0
            for part in iter(lambda: file.read(_SAMPLE) + file.readline(), b""):
                if b"\0" in part or _flaw(part):
                    for number, line in enumerate(part.splitlines(keepends=True), before + 1):
                        if b"\0" in line:
                            raise ValueError(_told_of_zeros(path, number, line))
                        if flaw := _flaw(line):
                            raise ValueError(_told_of_encoding(path, number, flaw, part[part.index(line) :]))
                head, before = head or part, before + part.count(b"\n")
            return head
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is packed by gzip, and cut or damaged: {error}. Copy it again.") from error


def _told_of_zeros(path: Path, number: int, line: bytes) -> str:
    zeros = [line[place::2].count(0) / max(1, len(line[place::2])) for place in (0, 1)]
    if max(zeros) > 0.5:
        encoding = "UTF-16LE" if zeros[1] > zeros[0] else "UTF-16BE"
        return f"{path} is in {encoding}: {_convert(path, encoding)}."
    return f"{path} has zero bytes in line {number}, which no text has: it is damaged, or no text. Copy it again."


def _flaw(part: bytes) -> UnicodeDecodeError | None:
    """The error that shows why bytes are not UTF-8."""
    try:
        part.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _told_of_encoding(path: Path, number: int, flaw: UnicodeDecodeError, sample: bytes) -> str:
    line = flaw.object
    if line == sample and flaw.reason == "unexpected end of data":
        return f"{path} ends within a character: it is cut. Copy it again."
    encoding = _encoding_of(sample)
    shown = line[max(0, flaw.start - _SHOWN // 2) : flaw.start + _SHOWN].decode(encoding, "replace").strip()
    return (
        f"{path} is not in UTF-8 (line {number}). Its bytes fit {encoding}, in which it has {shown!r} there: "
        f"{_convert(path, encoding)}."
    )


def _encoding_of(sample: bytes) -> str:
    """An encoding that fits bytes that are not UTF-8, judged by the script of the decoded text."""
    for encoding in ("cp1252", "latin-1"):
        letters = [char for char in sample.decode(encoding, "replace") if char.isalpha()]
        beyond = sum(not char.isascii() for char in letters)
        if beyond <= _WESTERN * len(letters) and _decodes(sample, encoding):
            return encoding
    for encoding, script in _SCRIPTS:
        if (text := _decodes(sample, encoding)) is not None:
            beyond = [char for char in text if not char.isascii()]
            if len(re.findall(f"[{script}]", text)) >= 0.9 * len(beyond):
                return encoding
    return "cp1252" if _decodes(sample, "cp1252") else "latin-1"


def _decodes(sample: bytes, encoding: str) -> str | None:
    """The text up to the last whole line; None if it is in another encoding."""
    try:
        return (sample[: sample.rfind(b"\n")] if sample.count(b"\n") else sample).decode(encoding)
    except UnicodeDecodeError:
        return None


def _convert(path: Path, encoding: str) -> str:
    return f"convert it, as by `iconv -f {encoding} -t UTF-8 {path.name} > utf8{path.suffix}`"


def _only_object(path: Path) -> dict[str, Any] | None:
    """The object that fills a whole file; None if there are several, as in JSON lines, or if it can't be read."""
    with _open(path) as file:
        lines = filter(None, map(bytes.strip, file))
        first, second = next(lines, b""), next(lines, None)
    if second is not None and _is_object(first):
        return None
    try:
        with _open(path) as file:
            found = json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError:  # the reader reports it, with the row
        return None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to hold records.") from None
    return found if isinstance(found, dict) else None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _records_in(found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys of lists of records; a chat does not count, for it is a list of messages and a single record."""
    for key, value in found.items():
        if isinstance(value, dict) and len(prefix) < _SHOWN:
            yield from _records_in(value, f"{prefix}{key}.")
        is_list = isinstance(value, list) and value and isinstance(value[0], dict)
        if is_list and not any(
            {role, text} <= set(value[0]) for role, text in (("role", "content"), ("from", "value"))
        ):
            yield f"{prefix}{key}"
