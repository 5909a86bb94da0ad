"""Case-insensitive search: every pair in Unicode, and the same on both databases."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import String, literal, select, union_all

from tollwire.service.domain import case_folding
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Database

CASED = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if not "\ud800" <= char <= "\udfff"
    and {char} != {char.lower(), char.upper(), char.title(), char.casefold()}
]


def found(database: Database, term: str, texts: Iterable[str]) -> list[str]:
    """The texts that the database finds for the term."""
    rows = union_all(*(select(literal(one, String).label("text")) for one in texts)).subquery()
    with database.read() as connection:
        query = select(rows.c.text).where(dialect_of(connection).contains(rows.c.text, term))
        return list(connection.execute(query).scalars())


def expected(term: str, text: str) -> bool:
    """Independent of the code: full case folding; all four kinds of "i" are one letter."""

    def folded(one: str) -> str:
        return one.casefold().replace("ı", "i")

    def undotted(one: str) -> str:
        return re.sub("i\u0307", "i", folded(one))

    return folded(term) in folded(text) or undotted(term) in undotted(text)


def test_every_form_of_every_letter_is_found_by_every_other(database: Database) -> None:
    pairs = []
    for char in CASED:
        for form in {char.lower(), char.upper(), char.title(), char.casefold(), char.swapcase()}:
            pairs += [(char, f"a{form}z"), (form, f"a{char}z")]
    assert len(pairs) > 5_000
    for term, text in pairs:
        assert case_folding.matches(term, text), (term, text)
    # The databases do the same work for each pair: a sample of the pairs is enough.
    tried = pairs[::7]
    for start in range(0, len(tried), 100):
        part = tried[start : start + 100]
        with database.read() as connection:
            query = select(
                *(
                    dialect_of(connection).contains(literal(text, String), term)
                    for term, text in part
                )
            )
            [row] = connection.execute(query)
        assert [pair for pair, is_found in zip(part, row, strict=True) if not is_found] == []


def test_no_character_has_other_forms() -> None:
    assert max(map(ord, CASED)) <= case_folding._LAST_WITH_FORMS


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("ΟΔΟΣ", "οδος"),  # final sigma
        ("οδός", "ΟΔΌΣ"),
        ("\u212aelvin", "KELVIN"),  # the Kelvin sign
        ("k", "\u212a"),
        ("ǆ", "ǅungla"),  # digraphs, with their title case
        ("Ǆ", "ǅ"),
        ("istanbul", "İSTANBUL"),
        ("İstanbul", "istanbul"),
        ("i\u0307stanbul", "İSTANBUL"),
        ("ISPARTA", "ısparta"),
        ("ısparta", "isparta"),
        ("strasse", "Straße"),
        ("STRAẞE", "strasse"),
        ("sa", "STRAßAU"),  # a part of a folded character
        ("first", "ﬁrﬅ"),
        ("ﬁ", "OFFICE"),
        ("\u212bngström", "ÅNGSTRÖM"),
        ("µ", "μ"),
        ("s", "ſ"),
        ("\u0307", "İ"),
        ("ᾳ", "ΑΙ"),
    ],
)
def test_pairs(database: Database, term: str, text: str) -> None:
    assert expected(term, text)
    assert case_folding.matches(term, text)
    assert found(database, term, [text]) == [text]


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("ss", "s"),
        ("é", "e"),
        ("o", "ö"),
        ("z", "ż"),
        ("*", "a"),
        ("?", "a"),
        ("[a]", "a"),
        ("%", "a"),
        ("_", "a"),
        (".", "a"),
        ("^a", "a"),
        ("\\", "a"),
        ("44", "4 4"),
        ("ß", "s s"),
    ],
)
def test_others_are_not_found(database: Database, term: str, text: str) -> None:
    assert not case_folding.matches(term, text)
    assert found(database, term, [text, f"ü{text}"]) == []


TEXTS = st.text(
    st.sampled_from("aAiIıİ\u0307sSſßẞﬁﬂfFlLſﬅﬆtTkK\u212aσςΣǆǅǄΙιͅᾳ0*?[]^%_-\\")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=8,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(term=TEXTS.filter(bool), texts=st.lists(TEXTS, min_size=1, max_size=6), data=st.data())
def test_databases_find_the_same_as_case_folding(
    database: Database, term: str, texts: list[str], data: st.DataObject
) -> None:
    # Terms that are found, whole and as parts.
    texts += [f"x{term}", term.upper() + "9", term.lower(), term.title()]
    for one in (term, data.draw(st.sampled_from(texts))[data.draw(st.integers(0, 3)) :]):
        if one:
            wanted = [text for text in texts if expected(one, text)]
            assert found(database, one, texts) == wanted
            assert [text for text in texts if case_folding.matches(one, text)] == wanted
