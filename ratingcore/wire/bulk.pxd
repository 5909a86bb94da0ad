"""The memory layout of the bulk path: a request, and the block of its calls that is processed.

A request is processed in blocks of calls, and each stage processes the whole block: read
(intake.pyx), rate (deck/batch.pyx), write (rated_call_writer.pyx). rate_calls.pyx calls these
stages.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from ..deck.batch cimport BLOCK, call_t, outcome_t
from .call_parse cimport text_t
from .tenant_map cimport tenant_t
from ..index.tables cimport rate_terms_t

cdef struct options_t:          # of a request, besides its calls
    int64_t min_rate_revision   # 0: none
    int32_t view                # a number of tollwire.v1.RatedCallView, or any other

cdef struct source_t:           # the part of a request that is not read yet
    const uint8_t* at
    const uint8_t* end
    int64_t now_ns              # the start of calls without one
    options_t options           # the last ones that were read

cdef struct job_t:              # data of a call that rating does not use
    text_t source               # the call's own bytes
    text_t call_id
    text_t destination          # of the rate that matched; set when the block is measured
    text_t answer               # if referred: the RatedCall's bytes, owned by the request
    int64_t tenant_id
    const tenant_t* tenant      # undefined if referred
    const rate_terms_t* rate_terms   # of the rate that matched, or NULL; set before destination
    uint8_t referred            # 1: the core leaves the call to the service

cdef struct block_t:            # entry i of each array belongs to call i
    int64_t tenant_id           # of all calls; 0 if they have several, or one is referred
    call_t calls[BLOCK]         # undefined if referred
    outcome_t outcomes[BLOCK]   # undefined if referred
    job_t jobs[BLOCK]
    uint32_t count
