/* What the machine can do at best, and marks for callgrind. Built and called by native.py. */

#include <stdint.h>
#include <string.h>

#ifdef WITH_VALGRIND
#include <valgrind/callgrind.h>
#endif

enum { LINE_WORDS = 8 }; /* 64 bytes */

static uint64_t scrambled(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9;
    x ^= x >> 27;
    x *= 0x94D049BB133111EB;
    return x ^ x >> 31;
}

/* One cycle through all lines in random order (Sattolo): the first word of each names the next. */
void make_cycle(uint64_t *words, uint64_t lines)
{
    for (uint64_t i = 0; i < lines; i++)
        words[i * LINE_WORDS] = i;
    for (uint64_t i = lines - 1; i > 0; i--) {
        uint64_t j = scrambled(i) % i, kept = words[i * LINE_WORDS];
        words[i * LINE_WORDS] = words[j * LINE_WORDS];
        words[j * LINE_WORDS] = kept;
    }
}

/* Loads of which each waits for the one before. */
uint64_t dependent_loads(const uint64_t *words, uint64_t count)
{
    uint64_t at = 0;
    for (uint64_t i = 0; i < count; i++)
        at = words[at * LINE_WORDS];
    return at;
}

/* Loads that wait for nothing: the processor keeps as many on their way as it can. ``lines`` is a
 * power of two. */
uint64_t independent_loads(const uint64_t *words, uint64_t lines, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += words[(i * 0x9E3779B97F4A7C15 >> 20 & (lines - 1)) * LINE_WORDS];
    return sum;
}

/* What every look-up of a batch does besides looking up: reads the number, its offset and the
 * call's start, writes a row and a length. */
uint64_t pass_through(const uint8_t *numbers, const int64_t *offsets, const int64_t *starts,
                      uint64_t count, int32_t *rows, uint8_t *lengths)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t head;
        memcpy(&head, numbers + offsets[i], 8);
        rows[i] = (int32_t)(head >> 32 ^ (uint64_t)starts[i]);
        lengths[i] = (uint8_t)(offsets[i + 1] - offsets[i]);
    }
    return count;
}

/* From here on callgrind counts ... */
void start_counting(void)
{
#ifdef WITH_VALGRIND
    CALLGRIND_START_INSTRUMENTATION;
#endif
}

/* ... until here; it writes a file of what it has counted under this name. */
void stop_counting(const char *name)
{
#ifdef WITH_VALGRIND
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
#else
    (void)name;
#endif
}
