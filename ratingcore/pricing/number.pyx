"""Normalisation of dialled numbers to the digits that are matched (rating rule 2).

Works on UTF-8 without decoding it: all characters with a meaning are ASCII, every byte of any other
character is 0x80 or above and so no digit, and text after "@" or ";" is ignored.
"""

from cpython.exc cimport PyErr_Clear
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    # Declared without an exception on purpose: a lone surrogate is cleared and handled below.
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) noexcept

cdef enum:
    # One "+", a dialling rule and a number. A longer text is not a valid number after rewriting.
    MAX_STRIPPED = 1 + MAX_DIALLING_DIGITS + MAX_DIGITS


cdef inline bint _is_separator(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'-' or c == c'.' or c == c'(' or c == c')' or c == c'/'


cdef size_t _scheme_length(const uint8_t* text, size_t size) noexcept nogil:
    """4 or 5 if the text begins with "sip:", "tel:" or "sips:", in upper or lower case; else 0."""
    cdef uint8_t a, b, c
    if size < 4:
        return 0
    # Bit 5 makes ASCII letters lower-case, and makes no letter of any other character.
    a, b, c = text[0] | 0x20, text[1] | 0x20, text[2] | 0x20
    if a == c's' and b == c'i' and c == c'p':
        if text[3] == c':':
            return 4
        if size >= 5 and (text[3] | 0x20) == c's' and text[4] == c':':
            return 5
    elif a == c't' and b == c'e' and c == c'l' and text[3] == c':':
        return 4
    return 0


cdef int _strip(const uint8_t* text, size_t size, uint8_t* stripped) noexcept nogil:
    """Remove the scheme, the separators and all from "@" or ";" on. Digits remain, perhaps after
    one "+".

    Returns their count, or -1 if another character or more than MAX_STRIPPED of them remain.
    """
    cdef size_t i
    cdef int count = 0
    cdef uint8_t c
    for i in range(_scheme_length(text, size), size):
        c = text[i]
        if c == c'@' or c == c';':
            break
        if _is_separator(c):
            continue
        if not (c'0' <= c <= c'9' or (c == c'+' and count == 0)) or count == MAX_STRIPPED:
            return -1
        stripped[count] = c
        count += 1
    return count


cdef int normalize(
    const uint8_t* text, size_t size, const dialling_t* rules, uint8_t* digits
) noexcept nogil:
    """Write up to MAX_DIGITS ASCII digits. Returns their count; 0: the number is invalid."""
    cdef uint8_t stripped[MAX_STRIPPED]
    cdef int count = _strip(text, size, stripped)
    cdef int skip = 0
    cdef int added = 0
    if count <= 0:
        return 0
    if stripped[0] == c'+':
        skip = 1
    elif (
        0 < rules.international_prefix_length <= count
        and memcmp(stripped, rules.international_prefix, rules.international_prefix_length) == 0
    ):
        skip = rules.international_prefix_length
    elif (
        0 < rules.national_prefix_length <= count
        and memcmp(stripped, rules.national_prefix, rules.national_prefix_length) == 0
    ):
        skip = rules.national_prefix_length
        added = rules.country_code_length
    count -= skip
    if not 1 <= added + count <= MAX_DIGITS:
        return 0
    memcpy(digits, rules.country_code, added)
    memcpy(digits + added, stripped + skip, count)
    return added + count


cdef int read_prefix(const uint8_t* text, size_t size, uint8_t* digits) noexcept nogil:
    """Read the prefix of a rate: up to MAX_DIGITS ASCII digits, perhaps after one "+". Returns the
    count of its digits; -1: the prefix is invalid."""
    cdef size_t skip = 1 if size > 0 and text[0] == c'+' else 0
    cdef size_t count = size - skip
    cdef size_t i
    if count > MAX_DIGITS or (count == 0 and size > 0):
        return -1
    for i in range(count):
        if not c'0' <= text[skip + i] <= c'9':
            return -1
        digits[i] = text[skip + i]
    return <int> count


cdef int normalize_text(str number, const dialling_t* rules, uint8_t* digits) except -1:
    """``normalize`` of a Python string."""
    cdef Py_ssize_t size = 0
    cdef bytes encoded
    cdef const char* text = PyUnicode_AsUTF8AndSize(number, &size)
    if text == NULL:
        # A lone surrogate has no UTF-8. It makes a number invalid, except in an ignored part.
        PyErr_Clear()
        encoded = number.encode("utf-8", "surrogatepass")
        return normalize(encoded, len(encoded), rules, digits)
    return normalize(<const uint8_t*> text, size, rules, digits)


cdef int _set_digits(uint8_t* target, uint8_t* length, str digits, str name) except -1:
    cdef bytes encoded = digits.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_DIALLING_DIGITS or (encoded and not encoded.isdigit()):
        raise ValueError(f"{name} must be at most {MAX_DIALLING_DIGITS} digits, not {digits!r}")
    memcpy(target, <const char*> encoded, len(encoded))
    length[0] = len(encoded)
    return 0


cdef int set_dialling(
    dialling_t* rules, str country_code, str national_prefix, str international_prefix
) except -1:
    """Check a tenant's dialling rules and write them. ValueError names the wrong one."""
    memset(rules, 0, sizeof(dialling_t))
    _set_digits(rules.country_code, &rules.country_code_length, country_code, "country_code")
    _set_digits(
        rules.national_prefix, &rules.national_prefix_length, national_prefix, "national_prefix"
    )
    _set_digits(
        rules.international_prefix,
        &rules.international_prefix_length,
        international_prefix,
        "international_prefix",
    )
    if not rules.country_code_length:
        rules.national_prefix_length = 0
    return 0


def normalize_number(
    str number not None,
    str country_code not None = "",
    str national_prefix not None = "",
    str international_prefix not None = "",
):
    """The 1 to 32 digits to match, or None for an invalid number.

    The other three are the tenant's dialling rules, up to 16 digits each; "" for none.
    ValueError if one of them has another character.
    """
    cdef dialling_t rules
    cdef uint8_t digits[MAX_DIGITS]
    cdef int count
    set_dialling(&rules, country_code, national_prefix, international_prefix)
    count = normalize_text(number, &rules, digits)
    return digits[:count].decode("ascii") if count else None


def normalize_prefix(str prefix not None):
    """The 0 to 32 digits of a rate's prefix, or None if the text is not a prefix.

    Removes one leading "+" and no other character: a range, a list or a decimal number must not
    become another prefix. Only the empty text is the empty prefix.
    """
    cdef uint8_t digits[MAX_DIGITS]
    cdef bytes encoded = prefix.encode("utf-8", "surrogatepass")
    cdef int count = read_prefix(encoded, len(encoded), digits)
    return digits[:count].decode("ascii") if count >= 0 else None
