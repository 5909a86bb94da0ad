"""Searching text without regard to case, alike on both databases and in every language.

LIKE does not do: SQLite folds only ASCII, and PostgreSQL what the locale of the database has. Here
both sides are folded with Python's tables of Unicode (``fold``): SQLite calls ``holds`` for texts
that are not ASCII, and PostgreSQL replaces the characters whose folded form has a character of the
term.
"""

from __future__ import annotations

from functools import cache, reduce

from sqlalchemy import ColumnElement, Connection, case, false, func, or_
from sqlalchemy.orm import InstrumentedAttribute

# The name of ``holds`` in SQLite.
SQLITE_FUNCTION = "tollwire_holds"

Text = ColumnElement[str] | InstrumentedAttribute[str]

_DOT = "\u0307"  # combining dot above
# No character beyond has another form; a test looks through all of them.
_LAST_WITH_FORMS = 0x1FFFF


def fold(text: str) -> str:
    """Without differences of case: Unicode's full case folding, and "ı" as "i" like "I"."""
    return text.casefold().replace("ı", "i")


def matches(term: str, text: str) -> bool:
    """Whether ``term`` stands somewhere in ``text``, in whatever case.

    "İ", "I", "ı" and "i" are all the same letter: folded, "İ" is "i" with a combining dot, and the
    dot may be missing.
    """
    return holds(text, fold(term))


def holds(text: str, folded_term: str) -> bool:
    """``matches`` for a term that is folded already."""
    folded = fold(text)
    return any(
        needle in (_undotted(folded) if is_undotted else folded)
        for needle, is_undotted in _needles(folded_term)
    )


def contains(connection: Connection, column: Text, term: str) -> ColumnElement[bool]:
    """``matches`` in the database."""
    folded = fold(term)
    is_sqlite = connection.dialect.name == "sqlite"
    if not any(_forms(char) for char in folded):
        return _has(is_sqlite, column, folded)
    if is_sqlite:
        return case(
            (
                column.op("GLOB", is_comparison=True)("*[^\x01-\x7f]*"),
                getattr(func, SQLITE_FUNCTION)(column, folded),
            ),
            else_=or_(
                false(),
                *(
                    _has(True, func.lower(column), needle)
                    for needle, _ in _needles(folded)
                    if needle.isascii()
                ),
            ),
        )
    folding = _folding(column, folded)
    return or_(
        *(
            _has(False, func.replace(folding, "i" + _DOT, "i") if is_undotted else folding, needle)
            for needle, is_undotted in _needles(folded)
        )
    )


def _has(is_sqlite: bool, text: Text, needle: str) -> ColumnElement[bool]:
    find = func.instr if is_sqlite else func.strpos
    return find(text, needle) > 0


def _folding(column: Text, folded_term: str) -> Text:
    """``fold`` of a column in PostgreSQL, as far as it matters for a term: a character whose folded
    form has none of the term's characters cannot be part of a match."""
    forms = sorted({form for char in folded_term for form in _forms(char)})
    single = [form for form in forms if len(fold(form)) == 1]
    folding = reduce(
        lambda text, form: func.replace(text, form, fold(form)),
        (form for form in forms if len(fold(form)) > 1),
        column,
    )
    return func.translate(folding, "".join(single), "".join(map(fold, single)))


def _needles(folded_term: str) -> list[tuple[str, bool]]:
    """What to look for: each with whether it is in the text as it is folded, or in that without the
    dots of "i"."""
    if "i" not in folded_term:
        return [(folded_term, False)]
    needles = [(_undotted(folded_term), True)]
    # A term that begins with a dot may go on where the text has an "i" before it.
    return needles if _DOT not in folded_term else [(folded_term, False), *needles]


def _undotted(folded: str) -> str:
    return folded.replace("i" + _DOT, "i")


def _forms(char: str) -> str:
    """The other characters whose folded form has this one in it."""
    return _all_forms().get(char, "")


@cache
def _all_forms() -> dict[str, str]:
    forms: dict[str, str] = {}
    for form in map(chr, range(_LAST_WITH_FORMS + 1)):
        folded = fold(form)
        if folded != form:
            for char in set(folded):
                forms[char] = forms.get(char, "") + form
    return forms
