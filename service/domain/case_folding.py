"""Compares texts without regard to case, in every language.

Both sides are folded with Python's tables of Unicode. The databases search by the same rules
(tollwire.service.storage.dialects). Must not depend on a database.
"""

from __future__ import annotations

from functools import cache

_DOT = "\u0307"  # combining dot above
DOTTED_I = "i" + _DOT
# No character above this one has another form; a test checks all characters.
_LAST_WITH_FORMS = 0x1FFFF


def fold(text: str) -> str:
    """The text without differences of case: Unicode's full case folding, and "ı" becomes "i"."""
    return text.casefold().replace("ı", "i")


def matches(term: str, text: str) -> bool:
    """Whether ``text`` contains ``term``, in any case.

    "İ", "I", "ı" and "i" are the same letter: folded, "İ" is "i" with a combining dot, and the
    dot may be missing.
    """
    return holds(text, fold(term))


def holds(text: str, folded_term: str) -> bool:
    """``matches`` for a term that is folded already."""
    folded = fold(text)
    return any(
        needle in (undotted(folded) if is_undotted else folded)
        for needle, is_undotted in needles(folded_term)
    )


def needles(folded_term: str) -> list[tuple[str, bool]]:
    """The texts to search for. The flag says whether to search the folded text without the dots of
    "i"; otherwise the folded text itself."""
    if "i" not in folded_term:
        return [(folded_term, False)]
    found = [(undotted(folded_term), True)]
    # A term that begins with a dot may match in the middle of an "i" with a dot.
    return found if _DOT not in folded_term else [(folded_term, False), *found]


def undotted(folded: str) -> str:
    """The folded text with "i" in place of "i" and a combining dot."""
    return folded.replace(DOTTED_I, "i")


def other_forms(char: str) -> str:
    """The other characters whose folded form contains this one."""
    return _forms_of_all().get(char, "")


@cache
def _forms_of_all() -> dict[str, str]:
    forms: dict[str, str] = {}
    for form in map(chr, range(_LAST_WITH_FORMS + 1)):
        folded = fold(form)
        if folded != form:
            for char in set(folded):
                forms[char] = forms.get(char, "") + form
    return forms
