"""The memory layout of the bulk path: a request on its way, and the calls of it that are at hand.

A request goes through in blocks of calls, and a block through each stage as a whole: read
(intake.pyx), rated (deck/batch.pyx), written (rated_call_writer.pyx); rate_calls.pyx runs these steps.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from ..deck.batch cimport BLOCK, call_t, outcome_t
from .call_parse cimport text_t
from .tenant_map cimport tenant_t
from ..index.tables cimport rate_terms_t

cdef struct source_t:           # a request, as far as it is not read
    const uint8_t* at
    const uint8_t* end
    int64_t now_ns              # when calls without a start are taken to have started
    int64_t min_rate_revision   # the last one that was read; 0: none

cdef struct job_t:              # what is known of a call besides what rating asks and says
    text_t source               # the call's own bytes
    text_t call_id
    text_t destination          # of the rate that matched; set when the block is measured
    text_t answer               # where referred: the RatedCall's bytes, owned by who leads
    int64_t tenant_id
    const tenant_t* tenant      # undefined where referred
    const rate_terms_t* rate_terms        # of the rate that matched, or NULL; set with the destination
    uint8_t referred            # 1: the core leaves the call to the service

cdef struct block_t:            # entry i of each array is about call i
    int64_t tenant_id           # of all calls; 0 where they have several, or one is referred
    call_t calls[BLOCK]         # undefined where referred
    outcome_t outcomes[BLOCK]   # undefined where referred
    job_t jobs[BLOCK]
    uint32_t count
