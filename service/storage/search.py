"""Searching text without regard to case, alike on both databases and in every language.

LIKE would not do: SQLite folds only ASCII, and PostgreSQL as much as the locale in which the
database happens to have been created. So each letter of the term becomes the set of its own forms.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.orm import InstrumentedAttribute


def contains(
    connection: Connection, column: InstrumentedAttribute[str], term: str
) -> ColumnElement[bool]:
    """That ``term`` stands somewhere in ``column``, in upper or lower case or mixed."""
    if connection.dialect.name == "sqlite":
        return column.op("GLOB", is_comparison=True)("*" + "".join(map(_glob, term)) + "*")
    return column.regexp_match("".join(map(_regular_expression, term)))


def _glob(char: str) -> str:
    forms = _forms(char)
    # Within brackets nothing has a meaning but "]" at other than the first place, "^" and "-".
    return f"[{forms}]" if len(forms) > 1 or char in "*?[" else char


def _regular_expression(char: str) -> str:
    forms = _forms(char)
    if len(forms) > 1:
        return f"[{forms}]"
    return char if char.isalnum() or not char.isascii() else f"\\{char}"


def _forms(char: str) -> str:
    """The letter in lower and in upper case, where these are single characters."""
    first = {char, char.lower(), char.upper()}
    forms = first | {form.lower() for form in first} | {form.upper() for form in first}
    return "".join(sorted(form for form in forms if len(form) == 1))
