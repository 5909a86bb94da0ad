/* Features of C that Cython lacks: 128-bit integers, population count, prefetch, assertions. */
#ifndef RATINGCORE_NATIVE_H
#define RATINGCORE_NATIVE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RC_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define RC_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define RC_PREFETCH(address) __builtin_prefetch(address)

/* Must be true in every build; checked in the debug build only. */
#if TOLLWIRE_DEBUG
__attribute__((unused)) static void rc_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, condition);
    abort();
}
#define RC_ASSERT(condition) ((condition) ? (void)0 : rc_fail(__FILE__, __LINE__, #condition))
#else
#define RC_ASSERT(condition) ((void)(condition))
#endif

/* Adds to a counter that threads share; returns the new value. */
static inline int64_t rc_add(int64_t *counter, int64_t number)
{
    return __atomic_add_fetch(counter, number, __ATOMIC_RELAXED);
}

/* The number of bits set among the lowest ten. The builtin is one instruction on a target that has
 * it, and a library call on others, such as a wheel for every x86-64; the table is one load. */
#define RC_ONES_2(n) n, n + 1, n + 1, n + 2
#define RC_ONES_4(n) RC_ONES_2(n), RC_ONES_2(n + 1), RC_ONES_2(n + 1), RC_ONES_2(n + 2)
#define RC_ONES_6(n) RC_ONES_4(n), RC_ONES_4(n + 1), RC_ONES_4(n + 1), RC_ONES_4(n + 2)
#define RC_ONES_8(n) RC_ONES_6(n), RC_ONES_6(n + 1), RC_ONES_6(n + 1), RC_ONES_6(n + 2)
#define RC_ONES_10(n) RC_ONES_8(n), RC_ONES_8(n + 1), RC_ONES_8(n + 1), RC_ONES_8(n + 2)

static inline uint32_t rc_popcount10(uint32_t bits)
{
#if defined(__POPCNT__) || defined(__aarch64__)
    return (uint32_t)__builtin_popcount(bits);
#else
    static const uint8_t ones[1024] = {RC_ONES_10(0)};
    return ones[bits];
#endif
}

/* A mask of all bits below bit 0 to 15. */
static inline uint32_t rc_bits_below(uint32_t bit)
{
    static const uint16_t below[16] = {0,      1,      3,      7,      0xF,    0x1F,   0x3F,   0x7F,
                                       0xFF,   0x1FF,  0x3FF,  0x7FF,  0xFFF,  0x1FFF, 0x3FFF, 0x7FFF};
    return below[bit];
}

/* Eight characters as one word. The first character is the lowest byte. */
static inline uint64_t rc_load8(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void rc_store8(uint8_t *to, uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, 8);
}

/* The number of zero bits below the lowest one; ``word`` is not 0. */
static inline uint32_t rc_trailing_zeros(uint64_t word)
{
    return (uint32_t)__builtin_ctzll(word);
}

/* The values of eight digits. rc_no_digits checks that they are digits: a byte above 9 has its
 * highest bit set, or gets it when 0x76 is added. */
static inline uint64_t rc_digit_values(uint64_t word)
{
    return word ^ 0x3030303030303030;
}

static inline uint64_t rc_no_digits(uint64_t values)
{
    return ((values + 0x7676767676767676) | values) & 0x8080808080808080;
}

static inline int rc_all_digits(uint64_t word)
{
    return rc_no_digits(rc_digit_values(word)) == 0;
}

/* The number written by the first ``count`` (1 to 8) of eight digit values (0 to 9, not ASCII).
 * Joins neighbours to pairs, pairs to fours, fours to eight. */
static inline uint32_t rc_leading_number(uint64_t values, uint32_t count)
{
    values <<= 64 - 8 * count;
    values = (values * 10 + (values >> 8)) & 0x00FF00FF00FF00FF;
    values = (values * 100 + (values >> 16)) & 0x0000FFFF0000FFFF;
    return (uint32_t)(values * 10000 + (values >> 32));
}

/* Division of a number below 2^32 by a billing increment below 2^17, as a multiplication. With
 * reciprocal = (2^63 + e) / divisor, 0 < e <= divisor, the quotient is too large by less than
 * number * e / (divisor * 2^63) < 1 / divisor, which is too little to reach the next integer. */
static inline uint64_t rc_reciprocal(uint32_t divisor)
{
    return ((uint64_t)1 << 63) / divisor + 1;
}

static inline uint32_t rc_quotient(uint32_t number, uint64_t reciprocal)
{
    return (uint32_t)(((unsigned __int128)((uint64_t)number << 1) * reciprocal) >> 64);
}

/* floor(2^(64 + shift) / divisor) + 1, for an odd divisor above 1 and 2^shift <= divisor. */
static inline uint64_t rc_reciprocal_64(uint64_t divisor, uint32_t shift)
{
    return (uint64_t)(((unsigned __int128)1 << (64 + shift)) / divisor) + 1;
}

/* The upper half of a product. */
static inline uint64_t rc_high_product(uint64_t left, uint64_t right)
{
    return (uint64_t)(((unsigned __int128)left * right) >> 64);
}

/* Exact money: sixtieths of 10^-8 of a currency unit, so that seconds times a price per minute
 * stays whole. 64 intervals of 2^31 seconds at 10^16 are below 2^91. */
typedef unsigned __int128 rc_sixtieths;

static inline rc_sixtieths rc_sixtieths_of(uint64_t seconds, uint64_t price_e8)
{
    return (rc_sixtieths)seconds * price_e8;
}

static inline rc_sixtieths rc_sixtieths_sum(rc_sixtieths left, rc_sixtieths right)
{
    return left + right;
}

/* Divides the total by a divisor below 2^32: the quotient and the remainder. *fits is 0 if the
 * quotient needs more than 64 bits. Nearly all totals fit 64 bits. */
static inline uint64_t rc_divide(rc_sixtieths total, uint64_t divisor, uint64_t *remainder, int *fits)
{
    if (RC_LIKELY((uint64_t)(total >> 64) == 0)) {
        uint64_t low = (uint64_t)total;
        *fits = 1;
        *remainder = low % divisor;
        return low / divisor;
    }
    rc_sixtieths quotient = total / divisor;
    *fits = (uint64_t)(quotient >> 64) == 0;
    *remainder = (uint64_t)(total - quotient * divisor);
    return (uint64_t)quotient;
}

#endif
