"""Other ways to look up the longest prefix in Python: the baselines of the look-up.

Each is a function from a list of numbers to the lengths of their longest prefixes, 0 for none. A
baseline whose package is not installed, or was not built here, raises an error that says so.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

LongestPrefixes = Callable[[Sequence[str]], bytes]


class NotInstalled(Exception):
    """The package of a baseline is not installed; the text has its name."""


def marisa_trie(prefixes: Sequence[str]) -> LongestPrefixes:
    trie = _module("marisa_trie").Trie(list(prefixes))
    find = trie.prefixes

    def match(numbers: Sequence[str]) -> bytes:
        lengths = bytearray()
        for number in numbers:
            found = find(number)
            lengths.append(len(found[-1]) if found else 0)
        return bytes(lengths)

    return match


def datrie(prefixes: Sequence[str]) -> LongestPrefixes:
    trie = _module("datrie").BaseTrie(string.digits)
    for prefix in prefixes:
        trie[prefix] = len(prefix)
    find = trie.longest_prefix_value

    def match(numbers: Sequence[str]) -> bytes:
        return bytes([find(number, 0) for number in numbers])

    return match


def pygtrie(prefixes: Sequence[str]) -> LongestPrefixes:
    trie = _module("pygtrie").CharTrie((prefix, len(prefix)) for prefix in prefixes)
    find = trie.longest_prefix

    def match(numbers: Sequence[str]) -> bytes:
        return bytes([find(number).value or 0 for number in numbers])

    return match


def dict_by_length(prefixes: Sequence[str]) -> LongestPrefixes:
    """A set for each length of prefix, from the longest to the shortest."""
    lengths: dict[int, set[str]] = {}
    for prefix in prefixes:
        lengths.setdefault(len(prefix), set()).add(prefix)
    longest_first = sorted(lengths.items(), reverse=True)

    def match(numbers: Sequence[str]) -> bytes:
        found = bytearray()
        for number in numbers:
            for length, known in longest_first:
                if number[:length] in known:
                    found.append(length)
                    break
            else:
                found.append(0)
        return bytes(found)

    return match


BASELINES: dict[str, Callable[[Sequence[str]], LongestPrefixes]] = {
    "marisa-trie": marisa_trie,
    "datrie": datrie,
    "dict by length": dict_by_length,
    "pygtrie": pygtrie,
}


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise NotInstalled(f"{name} is not installed, or was not built here") from error
