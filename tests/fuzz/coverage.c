/* Which branches of the core an input has taken, for a fuzzer that is guided by them.

   gcc calls __sanitizer_cov_trace_pc in each basic block of a core that was built with
   TOLLWIRE_COVERAGE. Here each step from one block to the next has a counter of 8 bits, as libFuzzer
   wants them; two steps may share one. This library is loaded before all others. */

#include <stdint.h>

#define COUNTERS (1u << 15)

uint8_t coverage_counters[COUNTERS];
const uint32_t coverage_size = COUNTERS;

static __thread uint32_t last_block;

void __sanitizer_cov_trace_pc(void) {
    uint64_t place = (uint64_t) (uintptr_t) __builtin_return_address(0);
    /* Where the libraries stand differs from run to run, so the counters mean something in one. */
    uint32_t block = (uint32_t) ((place * 0x9E3779B97F4A7C15ull) >> 40);
    coverage_counters[(block ^ last_block >> 1) & (COUNTERS - 1)]++;
    last_block = block;
}
