"""Texts that a spreadsheet would run as formulas, written to CSV and read back."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollwire.service.cli.csv_file import CsvFile, CsvWriter

TEXTS = st.text(alphabet="'=+-@\t\r\n1 a\",\uff1d", max_size=6) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
)


def written(*fields: str) -> str:
    out = io.StringIO()
    CsvWriter(out).write(fields)
    return out.getvalue()


def read_back(text: str, width: int) -> list[str]:
    names = [f"c{number}" for number in range(width)]
    data = (",".join(names) + "\n" + text).encode()
    ((_, _, fields),) = CsvFile(io.BytesIO(data), names, multiline=True)
    assert isinstance(fields, list)
    return fields


@pytest.mark.parametrize(
    "field",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "\uff1d1"],
)
def test_a_formula_becomes_a_text(field: str) -> None:
    (row,) = csv.reader(io.StringIO(written(field), newline=""))
    assert row == [f"'{field}"]
    assert read_back(written("x", field), 2) == ["x", field]


@pytest.mark.parametrize(
    "field", ["+44 20 7946-0000", "-0.0120", "+1 (415) 555/0123", "O'Hare", "'5", "a=b", "", "-"]
)
def test_numbers_and_other_texts_stay_as_they_are(field: str) -> None:
    assert written(field, "x") == f"{field},x\n"


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_every_text_comes_back(fields: list[str]) -> None:
    assert read_back(written("x", *fields), len(fields) + 1) == ["x", *fields]
