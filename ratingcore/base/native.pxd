"""Declarations of native.h."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "native.h" nogil:
    ctypedef struct rc_sixtieths:
        # An unsigned 128-bit integer in C. As a struct, Cython cannot compute with it.
        pass

    bint likely "RC_LIKELY"(bint condition)
    bint unlikely "RC_UNLIKELY"(bint condition)
    void prefetch "RC_PREFETCH"(const void* address)
    void invariant "RC_ASSERT"(bint condition)
    int64_t add "rc_add"(int64_t* counter, int64_t number)
    uint32_t popcount10 "rc_popcount10"(uint32_t bits)
    uint32_t bits_below "rc_bits_below"(uint32_t bit)
    uint64_t load8 "rc_load8"(const uint8_t* from_)
    void store8 "rc_store8"(uint8_t* to, uint64_t word)
    uint32_t trailing_zeros "rc_trailing_zeros"(uint64_t word)
    uint64_t digit_values "rc_digit_values"(uint64_t word)
    uint64_t no_digits "rc_no_digits"(uint64_t values)
    bint all_digits "rc_all_digits"(uint64_t word)
    uint32_t leading_number "rc_leading_number"(uint64_t values, uint32_t count)
    uint64_t reciprocal "rc_reciprocal"(uint32_t divisor)
    uint32_t quotient "rc_quotient"(uint32_t number, uint64_t reciprocal)
    rc_sixtieths sixtieths_of "rc_sixtieths_of"(uint64_t seconds, uint64_t price_e8)
    rc_sixtieths sixtieths_sum "rc_sixtieths_sum"(rc_sixtieths left, rc_sixtieths right)
    uint64_t divide "rc_divide"(
        rc_sixtieths total, uint64_t divisor, uint64_t* remainder, int* fits
    )
    uint64_t reciprocal_64 "rc_reciprocal_64"(uint64_t divisor, uint32_t shift)
    uint64_t high_product "rc_high_product"(uint64_t left, uint64_t right)
