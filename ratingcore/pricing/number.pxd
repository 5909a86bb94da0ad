"""Normalisation of dialled numbers, and prefixes."""

from libc.stdint cimport uint8_t

cdef enum:
    MAX_DIGITS = 32          # of a normalised number, and of a prefix
    MAX_DIALLING_DIGITS = 16  # of each of a tenant's dialling rules

cdef struct dialling_t:
    uint8_t country_code[MAX_DIALLING_DIGITS]          # ASCII digits, not terminated
    uint8_t national_prefix[MAX_DIALLING_DIGITS]       # ASCII digits, not terminated
    uint8_t international_prefix[MAX_DIALLING_DIGITS]  # ASCII digits, not terminated
    uint8_t country_code_length                        # 0: none
    uint8_t national_prefix_length                     # 0: none, also without a country code
    uint8_t international_prefix_length                # 0: none

cdef int set_dialling(
    dialling_t* rules, str country_code, str national_prefix, str international_prefix
) except -1
cdef int normalize(
    const uint8_t* text, size_t size, const dialling_t* rules, uint8_t* digits
) noexcept nogil
cdef int read_prefix(const uint8_t* text, size_t size, uint8_t* digits) noexcept nogil
cdef int normalize_text(str number, const dialling_t* rules, uint8_t* digits) except -1
