/* What C has and Cython lacks: 128-bit integers, population count, prefetch, assertions. */
#ifndef RATINGCORE_NATIVE_H
#define RATINGCORE_NATIVE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RC_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define RC_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define RC_PREFETCH(address) __builtin_prefetch(address)

/* Holds in every build; checked in the debug build only. */
#if TOLLWIRE_DEBUG
static void rc_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, condition);
    abort();
}
#define RC_ASSERT(condition) ((condition) ? (void)0 : rc_fail(__FILE__, __LINE__, #condition))
#else
#define RC_ASSERT(condition) ((void)0)
#endif

/* The bits set among the lowest ten. The builtin is one instruction where the target is known to
 * have it, and a library call where not, as in a wheel for every x86-64; this is six operations. */
static inline uint32_t rc_popcount10(uint32_t bits)
{
#if defined(__POPCNT__) || defined(__aarch64__)
    return (uint32_t)__builtin_popcount(bits);
#else
    bits = bits - ((bits >> 1) & 0x155);
    bits = (bits & 0x333) + ((bits >> 2) & 0x333);
    return (bits + (bits >> 4) + (bits >> 8)) & 0xf;
#endif
}

/* Exact money: sixtieths of 10^-4 of a currency unit, so that seconds times a price per minute
 * stays whole. 64 intervals of 2^31 seconds at 10^12 are below 2^78. */
typedef unsigned __int128 rc_sixtieths;

static inline rc_sixtieths rc_sixtieths_of(uint64_t seconds, uint64_t price_e4)
{
    return (rc_sixtieths)seconds * price_e4;
}

static inline rc_sixtieths rc_sixtieths_sum(rc_sixtieths left, rc_sixtieths right)
{
    return left + right;
}

/* Division of the total by 60: the quotient, which may be beyond 64 bits (then *fits is 0), and the
 * remainder. Nearly all totals fit 64 bits, where the compiler multiplies instead of dividing. */
static inline uint64_t rc_divide_by_60(rc_sixtieths total, uint32_t *remainder, int *fits)
{
    if (RC_LIKELY((uint64_t)(total >> 64) == 0)) {
        uint64_t low = (uint64_t)total;
        *fits = 1;
        *remainder = (uint32_t)(low % 60);
        return low / 60;
    }
    rc_sixtieths quotient = total / 60;
    *fits = (uint64_t)(quotient >> 64) == 0;
    *remainder = (uint32_t)(total - quotient * 60);
    return (uint64_t)quotient;
}

#endif
