"""The column API: reads buffers of Python objects, writes new buffers, releases the GIL once."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .batch cimport BLOCK, call_t, match_block, outcome_t, rate_block
from ..index.match cimport match_t
from ..pricing.terms cimport MAX_SECONDS
from ..base.native cimport prefetch
from ..index.tables cimport tables_t

from ..pricing.values import Columns, Matches

cdef enum:
    MAX_NUMBER_BYTES = 0x7FFFFFFF
    TYPICAL_NUMBER_BYTES = 12
    AHEAD = 2 * BLOCK                # calls, from the present block to the one that is fetched

cdef dict ITEM_SIZES = {"B": 1, "i": 4, "q": 8, "Q": 8}

cdef struct input_t:
    const uint8_t* numbers
    const int64_t* offsets           # [count + 1]
    const int64_t* durations         # [count], or NULL
    const int64_t* started_at_ns     # [count]
    const uint8_t* billable          # [count], or NULL: all are
    Py_ssize_t numbers_size
    Py_ssize_t count

cdef struct output_t:
    uint8_t* status                  # [count], as all of these
    uint8_t* unrated_reason
    int64_t* bill_seconds
    uint64_t* cost_scaled
    int32_t* rate_index
    uint8_t* prefix_length


cdef dict FORMATS = {                # the codes of each type, in this machine's byte order
    "B": (b"B", b"b", b"c", b"?"),
    "i": (b"i", b"l" if sizeof(long) == 4 else b"i"),
    "q": (b"q", b"l" if sizeof(long) == 8 else b"q"),
    "Q": (b"Q", b"L" if sizeof(long) == 8 else b"Q"),
}


cdef class _Buffer:
    """A view of a buffer, which is released with this object."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object owner, str name, str form, bint writable=False):
        cdef int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
        try:
            PyObject_GetBuffer(owner, &self.view, flags | (PyBUF_WRITABLE if writable else 0))
        except BufferError as error:
            raise ValueError(f"{name}: {error}") from None
        self.held = True
        if self.view.ndim != 1:
            raise ValueError(f"{name} must have one dimension, not {self.view.ndim}")
        found = self.view.format if self.view.format != NULL else b"B"
        if (found[1:] if found[:1] in (b"@", b"=", b"<") else found) not in FORMATS[form]:
            raise ValueError(f"{name} must hold items of format {form!r}, not {found.decode()!r}")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef Py_ssize_t count(self):
        return self.view.len // self.view.itemsize


cdef int _require(Py_ssize_t count, Py_ssize_t expected, str name) except -1:
    if count != expected:
        raise ValueError(f"{name} must have {expected} items, not {count}")
    return 0


cdef bint _fill(
    const input_t* batch, Py_ssize_t first, uint32_t count, call_t* calls
) noexcept nogil:
    """Read a block of calls from the columns. 0 if one is wrong, else 1.

    Each item is read once, and the checked value is the one that is used. So a buffer that another
    thread writes to can give wrong results, but cannot lead to an access outside. Prefetches the
    block after the next, 8 items a cache line: the columns are more streams than the processor
    prefetches by itself.
    """
    cdef const int64_t* offsets = batch.offsets + first
    cdef const int64_t* starts = batch.started_at_ns + first
    # An integer, because a wrong offset gives no valid address.
    cdef size_t numbers = <size_t> batch.numbers
    cdef uint64_t limit = batch.numbers_size
    cdef uint64_t start = offsets[0]
    cdef uint64_t end, duration
    cdef bint wrong = start > limit
    cdef uint32_t i
    cdef int k
    for i in range(count):
        end = offsets[i + 1]
        wrong |= start > end
        wrong |= end > limit
        wrong |= end - start > MAX_NUMBER_BYTES
        calls[i].number = <const uint8_t*> (numbers + start)
        calls[i].number_size = <uint32_t> (end - start)
        calls[i].started_at_ns = starts[i]
        start = end
    for k in range(0, BLOCK, 8):
        prefetch(&offsets[AHEAD + k])
        prefetch(&starts[AHEAD + k])
        prefetch(<const void*> (numbers + start + (AHEAD - BLOCK + k) * TYPICAL_NUMBER_BYTES))
    if batch.durations == NULL:
        for i in range(count):
            calls[i].duration_seconds = 0
            calls[i].billable = True
        return not wrong
    for i in range(count):
        duration = batch.durations[first + i]
        wrong |= duration > MAX_SECONDS
        calls[i].duration_seconds = duration
        calls[i].billable = batch.billable[first + i] != 0
    for k in range(0, BLOCK, 8):
        prefetch(&batch.durations[first + AHEAD + k])
    prefetch(&batch.billable[first + AHEAD])
    return not wrong


cdef int _refuse(const input_t* batch, Py_ssize_t first, Py_ssize_t last) except -1:
    """Raise the error of the first wrong call from ``first`` on."""
    cdef Py_ssize_t i
    for i in range(first, last):
        start, end = batch.offsets[i], batch.offsets[i + 1]
        if not 0 <= start <= end <= batch.numbers_size or end - start > MAX_NUMBER_BYTES:
            raise ValueError(
                f"offsets[{i}] and offsets[{i + 1}], {start} and {end}, do not bound a number "
                f"within the {batch.numbers_size} bytes of numbers"
            )
        if batch.durations != NULL and not 0 <= batch.durations[i] <= MAX_SECONDS:
            raise ValueError(
                f"durations[{i}] must be 0 to {MAX_SECONDS}, not {batch.durations[i]}"
            )
    raise ValueError("the buffers were changed meanwhile")


cdef void _scatter(
    const outcome_t* outcomes, Py_ssize_t first, uint32_t count, output_t* out
) noexcept nogil:
    cdef uint32_t i
    cdef int k
    for i in range(count):
        out.status[first + i] = outcomes[i].status
        out.unrated_reason[first + i] = outcomes[i].unrated_reason
        out.bill_seconds[first + i] = outcomes[i].bill_seconds
        out.cost_scaled[first + i] = outcomes[i].cost_scaled
        out.rate_index[first + i] = outcomes[i].row
        out.prefix_length[first + i] = outcomes[i].prefix_length
    for k in range(0, BLOCK, 8):
        prefetch(&out.bill_seconds[first + AHEAD + k])
        prefetch(&out.cost_scaled[first + AHEAD + k])
        prefetch(&out.rate_index[first + AHEAD + k])
    prefetch(&out.status[first + AHEAD])
    prefetch(&out.unrated_reason[first + AHEAD])
    prefetch(&out.prefix_length[first + AHEAD])


cdef Py_ssize_t _rate_all(
    const tables_t* tables, const input_t* batch, output_t* out
) noexcept nogil:
    """Process all blocks. Returns -1, or the start of a block with a wrong call."""
    cdef call_t calls[BLOCK]
    cdef outcome_t outcomes[BLOCK]
    cdef Py_ssize_t first = 0
    cdef uint32_t count
    while first < batch.count:
        count = BLOCK if batch.count - first > BLOCK else <uint32_t> (batch.count - first)
        if not _fill(batch, first, count, calls):
            return first
        rate_block(tables, calls, count, outcomes)
        _scatter(outcomes, first, count, out)
        first += count
    return -1


cdef Py_ssize_t _match_all(
    const tables_t* tables, const input_t* batch, output_t* out
) noexcept nogil:
    cdef call_t calls[BLOCK]
    cdef match_t matches[BLOCK]
    cdef Py_ssize_t first = 0
    cdef uint32_t count, i
    while first < batch.count:
        count = BLOCK if batch.count - first > BLOCK else <uint32_t> (batch.count - first)
        if not _fill(batch, first, count, calls):
            return first
        match_block(tables, calls, count, matches)
        for i in range(count):
            out.rate_index[first + i] = matches[i].row
            out.prefix_length[first + i] = <uint8_t> matches[i].length
        first += count
    return -1


cdef tuple _new_columns(Py_ssize_t count, tuple forms):
    """New columns. They are not zeroed, because every item is written. All are parts of one block:
    the allocator keeps one block for the next batch, but would return several large ones to the
    system, and new memory costs more than a look-up. The larger items come first, for alignment."""
    cdef Py_ssize_t start = 0
    cdef list columns = []
    cdef Py_ssize_t item_size = 0
    for form in forms:
        item_size += ITEM_SIZES[form]
    memory = memoryview(PyByteArray_FromStringAndSize(NULL, count * item_size))
    for form in forms:
        item_size = ITEM_SIZES[form]
        columns.append(memory[start : start + count * item_size].cast(form))
        start += count * item_size
    return tuple(columns)


cdef _Buffer _output(object columns, str name, str form, Py_ssize_t count):
    cdef _Buffer buffer = _Buffer(getattr(columns, name), name, form, True)
    _require(buffer.count(), count, name)
    return buffer


cdef object rate_columns(
    const tables_t* tables,
    object numbers,
    object offsets,
    object durations,
    object started_at_ns,
    object billable,
    object out,
):
    """See Deck.rate_columns."""
    cdef _Buffer numbers_buffer = _Buffer(numbers, "numbers", "B")
    cdef _Buffer offsets_buffer = _Buffer(offsets, "offsets", "q")
    cdef _Buffer durations_buffer = _Buffer(durations, "durations", "q")
    cdef _Buffer starts_buffer = _Buffer(started_at_ns, "started_at_ns", "q")
    cdef _Buffer billable_buffer = _Buffer(billable, "billable", "B")
    cdef Py_ssize_t count = durations_buffer.count()
    cdef Py_ssize_t bad
    cdef input_t batch
    cdef output_t output
    _require(offsets_buffer.count(), count + 1, "offsets")
    _require(starts_buffer.count(), count, "started_at_ns")
    _require(billable_buffer.count(), count, "billable")
    batch.numbers = <const uint8_t*> numbers_buffer.view.buf
    batch.numbers_size = numbers_buffer.view.len
    batch.offsets = <const int64_t*> offsets_buffer.view.buf
    batch.durations = <const int64_t*> durations_buffer.view.buf
    batch.started_at_ns = <const int64_t*> starts_buffer.view.buf
    batch.billable = <const uint8_t*> billable_buffer.view.buf
    batch.count = count
    if out is None:
        cost_scaled, bill_seconds, rate_index, status, unrated_reason, prefix_length = _new_columns(
            count, ("Q", "q", "i", "B", "B", "B")
        )
        out = Columns(status, unrated_reason, bill_seconds, cost_scaled, rate_index, prefix_length)
    cdef _Buffer status_buffer = _output(out, "status", "B", count)
    cdef _Buffer reason_buffer = _output(out, "unrated_reason", "B", count)
    cdef _Buffer bill_buffer = _output(out, "bill_seconds", "q", count)
    cdef _Buffer cost_buffer = _output(out, "cost_scaled", "Q", count)
    cdef _Buffer index_buffer = _output(out, "rate_index", "i", count)
    cdef _Buffer length_buffer = _output(out, "prefix_length", "B", count)
    output.status = <uint8_t*> status_buffer.view.buf
    output.unrated_reason = <uint8_t*> reason_buffer.view.buf
    output.bill_seconds = <int64_t*> bill_buffer.view.buf
    output.cost_scaled = <uint64_t*> cost_buffer.view.buf
    output.rate_index = <int32_t*> index_buffer.view.buf
    output.prefix_length = <uint8_t*> length_buffer.view.buf
    with nogil:
        bad = _rate_all(tables, &batch, &output)
    if bad >= 0:
        _refuse(&batch, bad, count)
    return out


cdef object match_columns(
    const tables_t* tables, object numbers, object offsets, object started_at_ns, object out
):
    """See Deck.match_columns."""
    cdef _Buffer numbers_buffer = _Buffer(numbers, "numbers", "B")
    cdef _Buffer offsets_buffer = _Buffer(offsets, "offsets", "q")
    cdef _Buffer starts_buffer = _Buffer(started_at_ns, "started_at_ns", "q")
    cdef Py_ssize_t count = starts_buffer.count()
    cdef Py_ssize_t bad
    cdef input_t batch
    cdef output_t output
    _require(offsets_buffer.count(), count + 1, "offsets")
    memset(&batch, 0, sizeof(input_t))
    memset(&output, 0, sizeof(output_t))
    batch.numbers = <const uint8_t*> numbers_buffer.view.buf
    batch.numbers_size = numbers_buffer.view.len
    batch.offsets = <const int64_t*> offsets_buffer.view.buf
    batch.started_at_ns = <const int64_t*> starts_buffer.view.buf
    batch.count = count
    if out is None:
        out = Matches(*_new_columns(count, ("i", "B")))
    cdef _Buffer index_buffer = _output(out, "rate_index", "i", count)
    cdef _Buffer length_buffer = _output(out, "prefix_length", "B", count)
    output.rate_index = <int32_t*> index_buffer.view.buf
    output.prefix_length = <uint8_t*> length_buffer.view.buf
    with nogil:
        bad = _match_all(tables, &batch, &output)
    if bad >= 0:
        _refuse(&batch, bad, count)
    return out
