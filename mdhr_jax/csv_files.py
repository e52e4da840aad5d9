# SPDX-License-Identifier: Apache-2.0
"""Tables as text, in the forms in which programs and spreadsheets save them.

Between the cells stand commas, semicolons, tabs or upright strokes, whichever cut the first line
into most; a line `sep=;` before it says which. Text is UTF-8 or UTF-16 with a byte order mark,
UTF-8 without, or else Windows-1252, a western Excel's. A decimal comma becomes a point where commas
do not part the cells. Lines without anything in them, as spreadsheets leave at the end, are no
rows.
"""

import codecs
import contextlib
import csv
import io
import pathlib
import re
import string
from collections.abc import Iterator, Sequence

from mdhr_jax.errors import InputError
from mdhr_jax.machine import files

_SEPARATORS = ";\t|,"
_BLANK = string.whitespace + "\x1a\xa0\u200b\ufeff"  # the end of a DOS file; blanks of the web
_STATED = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\A([+-]?[0-9]*),([0-9]+(?:[eE][+-]?[0-9]+)?)\Z")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

NOTHING = frozenset(
    "|nan|-nan|nan(ind)|-nan(ind)|nan(snan)|1.#ind|-1.#ind|1.#qnan|-1.#qnan|na|<na>|n/a|"
    "#n/a|#n/a n/a|#na|#nv|#num!|#div/0!|#null!|#value!|#ref!|#name?|null|none|.".split("|")
)
"""In small letters, what programs write where they have no value: C, R, pandas, Excel, SPSS."""
_TRUTHS = {"1": True, "true": True, "t": True, "yes": True} | {
    text: False for text in ("0", "false", "f", "no", *NOTHING)
}


def rows(file: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Place (`file, line 3`) and cells of each row, without the blanks around them.

    Raises:
      InputError: the file cannot be read as a table of text.
    """
    text = _text(file)
    stated = _STATED.match(text)
    separator = stated[1] if stated else _separator(text)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    if stated:
        next(table)
    try:
        for row in table:
            cells = [cell.strip(_BLANK) for cell in row]
            if separator != ",":
                cells = [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]
            if any(cells):
                yield f"{file}, line {table.line_num}", cells
    except csv.Error as error:
        raise InputError(
            f"{file}, line {table.line_num}: is no CSV ({error}), restore it"
        ) from error


def with_header(
    file: pathlib.Path,
) -> tuple[str, list[str], Iterator[tuple[str, list[str]]]]:
    """Place and cells of the first row, and the rows below, which have as many cells.

    Raises:
      InputError: the file is no table; later, a row has other cells.
    """
    below = rows(file)
    place, header = next(below, (f"{file}, line 1", []))
    return place, header, (_fitted(*row, len(header)) for row in below)


def _fitted(place: str, row: list[str], count: int) -> tuple[str, list[str]]:
    if len(row) < count or any(row[count:]):  # spreadsheets add empty cells
        raise InputError(f"{place}: {len(row)} values, but line 1 names {count} columns")
    return place, row[:count]


def integer(text: str, place: str, allowed: Sequence[int] | range, what: str) -> int:
    """The whole number that a cell holds, in one of the usual ways to write it.

    Raises:
      InputError: it is none of those allowed, or might be two of them: 1.000 is a thousand, too.
    """
    if re.fullmatch(r"[+-]?([0-9]{1,9}(\.0*)?|\.0+)", text) and int(float(text)) in allowed:
        number = int(float(text))
        if number and text.endswith(".000") and number * 1000 in allowed:
            raise InputError(
                f"{place}: is {what} {text} (or {text.replace('.', ',')}) {number} or "
                f"{number * 1000}? Write {what} numbers without points and commas"
            )
        return number
    few = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else str(list(allowed))
    raise InputError(f"{place}: {what} {text[:30]!r} is none of {few.strip('[]')}")


def truth(text: str, place: str, what: str) -> bool:
    """What a cell of yes and no says: 1, 1.0, true; 0, 0.0, False; nothing is no.

    Raises:
      InputError: it is neither.
    """
    known = _TRUTHS.get(re.sub(r"\.0*$", "", text).lower())
    if known is None:
        raise InputError(f"{place}: {what} {text[:30]!r} is neither 1 nor 0")
    return known


def _text(file: pathlib.Path) -> str:
    with files.reading(file):
        data = file.read_bytes()
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            at = error.start
            continue
        if "\0" not in text:
            return text
        at = data.index(b"\0")
    line = data.count(b"\n", 0, at) + 1
    raise InputError(f"{file}, line {line}: this is not text; save it as CSV in UTF-8")


def _separator(text: str) -> str:
    """What cuts the first line that is not empty into most cells."""
    lines = io.StringIO(text.lstrip("\r\n"), newline="")

    def cells(separator: str) -> int:
        lines.seek(0)
        with contextlib.suppress(csv.Error):  # of quotes beside the wrong one
            return len(next(csv.reader(lines, delimiter=separator, strict=True), ()))
        return 0

    return max(_SEPARATORS, key=cells)
