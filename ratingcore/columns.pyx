"""The column API: buffers of Python objects in, new buffers out, one release of the GIL."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .batch cimport BLOCK, call_t, match_block, outcome_t, rate_block
from .match cimport match_t
from .money cimport MAX_SECONDS
from .tables cimport tables_t

from .values import Columns, Matches

cdef enum:
    MAX_NUMBER_BYTES = 0x7FFFFFFF

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
    uint64_t* cost_e4
    int32_t* rate_index
    uint8_t* prefix_length


cdef class _Buffer:
    """A view of somebody's memory, given back when this goes."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object owner, str name, Py_ssize_t item_size):
        try:
            PyObject_GetBuffer(owner, &self.view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except BufferError as error:
            raise ValueError(f"{name}: {error}") from None
        self.held = True
        if self.view.ndim != 1:
            raise ValueError(f"{name} must have one dimension, not {self.view.ndim}")
        if self.view.itemsize != item_size or not self._is_integer(item_size):
            raise ValueError(
                f"{name} must hold integers of {item_size} bytes, not "
                f"{self.view.format.decode() if self.view.format != NULL else 'B'!r}"
            )

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef bint _is_integer(self, Py_ssize_t item_size):
        """The struct module's formats, in this machine's order."""
        cdef bytes form = self.view.format if self.view.format != NULL else b"B"
        if form[:1] in (b"@", b"=", b"<"):
            form = form[1:]
        return form in ((b"q", b"l") if item_size == 8 else (b"B", b"b", b"c", b"?"))

    cdef Py_ssize_t count(self):
        return self.view.len // self.view.itemsize


cdef int _require(Py_ssize_t count, Py_ssize_t expected, str name) except -1:
    if count != expected:
        raise ValueError(f"{name} must have {expected} items, not {count}")
    return 0


cdef int _fill(
    const input_t* batch, Py_ssize_t first, uint32_t count, call_t* calls
) noexcept nogil:
    """A block of calls from the columns; 0 at the first that is wrong, else 1.

    Every item is read once and what was checked is what is used, so that a buffer that another
    thread writes to can give wrong results, but lead nowhere outside.
    """
    cdef uint32_t i
    cdef int64_t start, end
    for i in range(count):
        start = batch.offsets[first + i]
        end = batch.offsets[first + i + 1]
        if not 0 <= start <= end <= batch.numbers_size or end - start > MAX_NUMBER_BYTES:
            return 0
        calls[i].number = batch.numbers + start
        calls[i].number_size = <uint32_t> (end - start)
        calls[i].started_at_ns = batch.started_at_ns[first + i]
        calls[i].duration_seconds = 0
        calls[i].billable = True
        if batch.durations != NULL:
            calls[i].duration_seconds = batch.durations[first + i]
            calls[i].billable = batch.billable[first + i] != 0
            if not 0 <= calls[i].duration_seconds <= MAX_SECONDS:
                return 0
    return 1


cdef int _refuse(const input_t* batch, Py_ssize_t first, Py_ssize_t last) except -1:
    """Say what is wrong with one of the calls from first on."""
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
    for i in range(count):
        out.status[first + i] = outcomes[i].status
        out.unrated_reason[first + i] = outcomes[i].unrated_reason
        out.bill_seconds[first + i] = outcomes[i].bill_seconds
        out.cost_e4[first + i] = outcomes[i].cost_e4
        out.rate_index[first + i] = outcomes[i].row
        out.prefix_length[first + i] = outcomes[i].prefix_length


cdef Py_ssize_t _rate_all(
    const tables_t* tables, const input_t* batch, output_t* out
) noexcept nogil:
    """Block after block; -1, or the start of a block with a wrong call."""
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


cdef bytearray _column(Py_ssize_t count, Py_ssize_t item_size):
    """Room for a column, not zeroed: every item will be written."""
    return PyByteArray_FromStringAndSize(NULL, count * item_size)


cdef object _view(bytearray memory, str form):
    return memoryview(memory).cast(form)


cdef object rate_columns(
    const tables_t* tables,
    object numbers,
    object offsets,
    object durations,
    object started_at_ns,
    object billable,
):
    """See Deck.rate_columns."""
    cdef _Buffer numbers_buffer = _Buffer(numbers, "numbers", 1)
    cdef _Buffer offsets_buffer = _Buffer(offsets, "offsets", 8)
    cdef _Buffer durations_buffer = _Buffer(durations, "durations", 8)
    cdef _Buffer starts_buffer = _Buffer(started_at_ns, "started_at_ns", 8)
    cdef _Buffer billable_buffer = _Buffer(billable, "billable", 1)
    cdef Py_ssize_t count = durations_buffer.count()
    cdef Py_ssize_t bad
    cdef input_t batch
    cdef output_t out
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
    cdef bytearray status = _column(count, 1)
    cdef bytearray unrated_reason = _column(count, 1)
    cdef bytearray bill_seconds = _column(count, 8)
    cdef bytearray cost_e4 = _column(count, 8)
    cdef bytearray rate_index = _column(count, 4)
    cdef bytearray prefix_length = _column(count, 1)
    out.status = <uint8_t*> <char*> status
    out.unrated_reason = <uint8_t*> <char*> unrated_reason
    out.bill_seconds = <int64_t*> <char*> bill_seconds
    out.cost_e4 = <uint64_t*> <char*> cost_e4
    out.rate_index = <int32_t*> <char*> rate_index
    out.prefix_length = <uint8_t*> <char*> prefix_length
    with nogil:
        bad = _rate_all(tables, &batch, &out)
    if bad >= 0:
        _refuse(&batch, bad, count)
    return Columns(
        _view(status, "B"),
        _view(unrated_reason, "B"),
        _view(bill_seconds, "q"),
        _view(cost_e4, "Q"),
        _view(rate_index, "i"),
        _view(prefix_length, "B"),
    )


cdef object match_columns(
    const tables_t* tables, object numbers, object offsets, object started_at_ns
):
    """See Deck.match_columns."""
    cdef _Buffer numbers_buffer = _Buffer(numbers, "numbers", 1)
    cdef _Buffer offsets_buffer = _Buffer(offsets, "offsets", 8)
    cdef _Buffer starts_buffer = _Buffer(started_at_ns, "started_at_ns", 8)
    cdef Py_ssize_t count = starts_buffer.count()
    cdef Py_ssize_t bad
    cdef input_t batch
    cdef output_t out
    _require(offsets_buffer.count(), count + 1, "offsets")
    memset(&batch, 0, sizeof(input_t))
    memset(&out, 0, sizeof(output_t))
    batch.numbers = <const uint8_t*> numbers_buffer.view.buf
    batch.numbers_size = numbers_buffer.view.len
    batch.offsets = <const int64_t*> offsets_buffer.view.buf
    batch.started_at_ns = <const int64_t*> starts_buffer.view.buf
    batch.count = count
    cdef bytearray rate_index = _column(count, 4)
    cdef bytearray prefix_length = _column(count, 1)
    out.rate_index = <int32_t*> <char*> rate_index
    out.prefix_length = <uint8_t*> <char*> prefix_length
    with nogil:
        bad = _match_all(tables, &batch, &out)
    if bad >= 0:
        _refuse(&batch, bad, count)
    return Matches(_view(rate_index, "i"), _view(prefix_length, "B"))
