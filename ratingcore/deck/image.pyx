# cython: cdivision=True
"""Decks in a file that several processes map: writing them, and opening them again.

An image has a header, an entry for each deck, and the tables of the decks. A deck of an image reads
the mapping, and only its ``tables_t`` is a copy. An image is for processes of one machine and one
release: the memory layout is the format. ``open_image`` refuses a file that is damaged, cut off, or
of another layout. It relies on the file not being changed afterwards: seal it.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ..base.memory cimport allocate, release
from ..base.pool cimport pool_t
from ..index.tables cimport (
    MAX_JUMP_DIGITS,
    MAX_ROWS,
    id_tops_t,
    jump_t,
    node_t,
    rate_terms_t,
    tables_t,
    window_t,
)
from ..pricing.terms cimport interval_t, terms_t
from .deck cimport Deck, Mapping

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, int64_t offset)
    int PROT_READ
    int MAP_PRIVATE
    void* MAP_FAILED

cdef extern from "unistd.h" nogil:
    int ftruncate(int fd, int64_t size)
    ssize_t pwrite(int fd, const void* data, size_t size, int64_t offset)


class InvalidImage(ValueError):
    """A file is not an image of decks, or is damaged."""


cdef enum:
    FORMAT = 2                   # raised with each change of the format or of a layout in it
    ALIGNMENT = 64
    MAX_PARTS = 14
    MAGIC_SIZE = 8
    MAX_IMAGE_DECKS = 0x7FFFFFFF

cdef const char* MAGIC = b"twdecks\n"

cdef struct header_t:            # 64 bytes
    uint8_t magic[MAGIC_SIZE]
    uint32_t format
    uint32_t layout              # of the structures in it, as _layout returns it
    uint64_t size                # bytes of the image
    uint64_t deck_count
    uint64_t checksum            # of the header with 0 here, and of the entries
    uint64_t reserved[3]

cdef struct entry_t:             # 40 bytes
    int64_t tenant_id
    int64_t revision
    uint64_t offset              # of the deck within the image
    uint64_t size                # bytes of the deck, a multiple of ALIGNMENT
    uint64_t checksum            # of its parts

cdef struct part_t:
    void** place                 # the pointer in the tables; NULL: the tables themselves
    uint64_t size                # bytes


cdef uint32_t _layout() except? 0:
    """Differs if a structure has another size."""
    cdef uint64_t value = 0
    for size in (
        sizeof(tables_t),
        sizeof(node_t),
        sizeof(jump_t),
        sizeof(id_tops_t),
        sizeof(window_t),
        sizeof(pool_t),
        sizeof(rate_terms_t),
        sizeof(terms_t),
        sizeof(interval_t),
    ):
        value = value * 1021 + size
    return <uint32_t> (value ^ value >> 32)


cdef inline uint64_t _aligned(uint64_t size) noexcept nogil:
    return (size + ALIGNMENT - 1) & ~<uint64_t> (ALIGNMENT - 1)


cdef uint64_t _checksum(const uint8_t* data, uint64_t size, uint64_t value) noexcept nogil:
    """Of these bytes after those that gave ``value``. Four products at a time, so that the
    processor does not wait for each."""
    cdef uint64_t lanes[4]
    cdef uint64_t word
    cdef uint64_t at = 0
    cdef uint32_t i
    for i in range(4):
        lanes[i] = value + i
    while size - at >= 32:
        for i in range(4):
            memcpy(&word, data + at + 8 * i, 8)
            lanes[i] = (lanes[i] ^ word) * <uint64_t> 0x9E3779B97F4A7C15
            lanes[i] ^= lanes[i] >> 29
        at += 32
    while at < size:
        word = 0
        i = 8 if size - at > 8 else <uint32_t> (size - at)
        memcpy(&word, data + at, i)
        lanes[0] = (lanes[0] ^ word) * <uint64_t> 0x9E3779B97F4A7C15
        lanes[0] ^= lanes[0] >> 29
        at += i
    value = size
    for i in range(4):
        value = (value ^ lanes[i]) * <uint64_t> 0xBF58476D1CE4E5B9
        value ^= value >> 32
    return value


cdef void _add_part(part_t* parts, uint32_t* count, void** place, uint64_t size) noexcept nogil:
    if size:
        parts[count[0]].place = place
        parts[count[0]].size = size
        count[0] += 1


cdef void _add_pool(part_t* parts, uint32_t* count, pool_t* pool) noexcept nogil:
    _add_part(parts, count, <void**> &pool.data, pool.size)
    if not pool.stride:
        _add_part(parts, count, <void**> &pool.ends, <uint64_t> pool.count * 4)


cdef uint32_t _parts_of(tables_t* tables, part_t* parts) noexcept nogil:
    """The parts of a deck in their order. Depends on the counts of the tables, and on whether they
    have id_tops."""
    cdef uint32_t count = 0
    cdef uint64_t slots = <uint64_t> tables.slot_count
    cdef uint64_t jumps = 1
    cdef uint32_t _i
    _add_part(parts, &count, NULL, sizeof(tables_t))
    _add_part(
        parts, &count, <void**> &tables.nodes, (<uint64_t> tables.node_count + 1) * sizeof(node_t)
    )
    if tables.jump_digits:
        for _i in range(tables.jump_digits):
            jumps *= 10
        _add_part(parts, &count, <void**> &tables.jumps, jumps * sizeof(jump_t))
    _add_part(parts, &count, <void**> &tables.rate_ids, slots * 4)
    _add_part(parts, &count, <void**> &tables.version_ids, slots * 4)
    if tables.id_tops != NULL:
        _add_part(parts, &count, <void**> &tables.id_tops, slots * sizeof(id_tops_t))
    _add_part(parts, &count, <void**> &tables.rate_terms_of, slots * 4)
    _add_part(
        parts, &count, <void**> &tables.windows, <uint64_t> tables.window_count * sizeof(window_t)
    )
    _add_pool(parts, &count, &tables.rate_terms)
    _add_pool(parts, &count, &tables.terms)
    _add_pool(parts, &count, &tables.intervals)
    _add_pool(parts, &count, &tables.destinations)
    return count


# --- Writing --------------------------------------------------------------------------------------


cdef int _write(int fd, const void* data, uint64_t size, uint64_t offset) except -1 nogil:
    """OSError if not all bytes can be written, such as ENOSPC."""
    cdef ssize_t written
    while size:
        written = pwrite(fd, data, size, <int64_t> offset)
        if written < 0:
            if errno == EINTR:
                continue
            with gil:
                raise OSError(errno, "the image of the decks cannot be written")
        data = <const uint8_t*> data + written
        offset += <uint64_t> written
        size -= <uint64_t> written
    return 0


cdef uint64_t _deck_size(tables_t* tables) noexcept nogil:
    cdef part_t parts[MAX_PARTS]
    cdef uint32_t count = _parts_of(tables, parts)
    cdef uint64_t size = 0
    cdef uint32_t i
    for i in range(count):
        size += _aligned(parts[i].size)
    return size


cdef void _clear_pool(pool_t* pool) noexcept nogil:
    pool.data = NULL
    pool.ends = NULL
    pool.buckets = NULL
    pool.data_capacity = pool.size
    pool.ends_capacity = 0 if pool.stride else pool.count
    pool.bucket_count = 0


cdef void _clear_pointers(tables_t* tables) noexcept nogil:
    """Of a copy: only id_tops shows whether it was set."""
    tables.nodes = NULL
    tables.jumps = NULL
    tables.rate_ids = NULL
    tables.version_ids = NULL
    tables.id_tops = <id_tops_t*> (<size_t> (1 if tables.id_tops != NULL else 0))
    tables.rate_terms_of = NULL
    tables.windows = NULL
    tables.node_capacity = tables.node_count + 1
    tables.slot_capacity = tables.slot_count
    tables.window_capacity = tables.window_count
    _clear_pool(&tables.rate_terms)
    _clear_pool(&tables.terms)
    _clear_pool(&tables.intervals)
    _clear_pool(&tables.destinations)


cdef int _write_deck(int fd, tables_t* tables, entry_t* entry) except -1 nogil:
    """Write a deck at the offset of its entry, and complete the entry."""
    cdef part_t parts[MAX_PARTS]
    cdef tables_t head = tables[0]
    cdef uint32_t count = _parts_of(tables, parts)
    cdef uint64_t offset = entry.offset
    cdef const void* data
    cdef uint32_t i
    _clear_pointers(&head)
    head.is_mapped = True
    entry.checksum = 0
    for i in range(count):
        data = &head if parts[i].place == NULL else parts[i].place[0]
        _write(fd, data, parts[i].size, offset)
        entry.checksum = _checksum(<const uint8_t*> data, parts[i].size, entry.checksum)
        offset += _aligned(parts[i].size)
    return 0


cdef uint64_t _head_checksum(header_t header, const entry_t* entries) noexcept nogil:
    cdef uint64_t value
    header.checksum = 0
    value = _checksum(<const uint8_t*> &header, sizeof(header_t), 0)
    return _checksum(<const uint8_t*> entries, header.deck_count * sizeof(entry_t), value)


def write_image(decks, int descriptor):
    """Write decks, a sequence of (tenant_id, Deck), into an empty file. OSError if it cannot be
    written. Releases the GIL for each deck."""
    cdef list given = [(tenant_id, deck) for tenant_id, deck in decks]
    cdef header_t header
    cdef entry_t* entries
    cdef Deck deck
    cdef uint64_t i
    memset(&header, 0, sizeof(header_t))
    memcpy(header.magic, MAGIC, MAGIC_SIZE)
    header.format = FORMAT
    header.layout = _layout()
    header.deck_count = len(given)
    header.size = _aligned(sizeof(header_t) + header.deck_count * sizeof(entry_t))
    entries = <entry_t*> allocate(header.deck_count, sizeof(entry_t))
    try:
        for i in range(header.deck_count):
            entries[i].tenant_id, deck = given[i]
            entries[i].revision = deck.revision
            entries[i].offset = header.size
            entries[i].size = _deck_size(deck.tables)
            header.size += entries[i].size
        if ftruncate(descriptor, <int64_t> header.size) < 0:
            raise OSError(errno, "the image of the decks cannot be written")
        for i in range(header.deck_count):
            deck = given[i][1]
            with nogil:
                _write_deck(descriptor, deck.tables, &entries[i])
        header.checksum = _head_checksum(header, entries)
        with nogil:
            _write(descriptor, entries, header.deck_count * sizeof(entry_t), sizeof(header_t))
            # The header last: an incomplete file has none.
            _write(descriptor, &header, sizeof(header_t), 0)
    finally:
        release(entries)


# --- Opening --------------------------------------------------------------------------------------


cdef bint _is_pool(const pool_t* pool, uint32_t stride) noexcept nogil:
    return pool.stride == stride and (
        stride == 0 or pool.size == <uint64_t> pool.count * stride
    )


cdef bint _is_head(const tables_t* tables) noexcept nogil:
    """Whether the counts of a deck are within their limits."""
    return (
        tables.is_mapped
        and tables.node_count <= MAX_ROWS
        and tables.slot_count <= MAX_ROWS
        and tables.window_count <= MAX_ROWS
        and tables.group_count <= tables.slot_count
        and tables.jump_digits <= MAX_JUMP_DIGITS
        and _is_pool(&tables.rate_terms, sizeof(rate_terms_t))
        and _is_pool(&tables.terms, sizeof(terms_t))
        and _is_pool(&tables.intervals, 0)
        and _is_pool(&tables.destinations, 0)
    )


cdef bint _open_deck(const uint8_t* data, const entry_t* entry, tables_t* tables) noexcept nogil:
    """Fill the tables from a deck whose bytes are within the image. False: it is damaged."""
    cdef part_t parts[MAX_PARTS]
    cdef uint64_t checksum = 0
    cdef uint64_t offset = 0
    cdef uint32_t count, i
    if entry.size < sizeof(tables_t):
        return False
    memcpy(tables, data, sizeof(tables_t))
    if not _is_head(tables):
        return False
    _clear_pointers(tables)
    count = _parts_of(tables, parts)
    for i in range(count):
        offset += _aligned(parts[i].size)
    if offset != entry.size:
        return False
    offset = 0
    for i in range(count):
        checksum = _checksum(data + offset, parts[i].size, checksum)
        if parts[i].place != NULL:
            parts[i].place[0] = <void*> (data + offset)
        offset += _aligned(parts[i].size)
    return checksum == entry.checksum


cdef int _check_head(const uint8_t* data, uint64_t size) except -1:
    """InvalidImage if the header or the entries are not valid."""
    cdef const header_t* header = <const header_t*> data
    if size < sizeof(header_t) or memcmp(header.magic, MAGIC, MAGIC_SIZE) != 0:
        raise InvalidImage("the file has no decks")
    if header.format != FORMAT or header.layout != _layout():
        raise InvalidImage("the decks are of another release")
    if header.size != size or header.deck_count > MAX_IMAGE_DECKS:
        raise InvalidImage(f"the decks are cut off: {size} bytes instead of {header.size}")
    if (
        sizeof(header_t) + header.deck_count * sizeof(entry_t) > size
        or _head_checksum(header[0], <const entry_t*> (data + sizeof(header_t))) != header.checksum
    ):
        raise InvalidImage("the entries of the decks are damaged")
    return 0


cdef Mapping _map(int descriptor, uint64_t size):
    cdef Mapping mapping = Mapping.__new__(Mapping)
    cdef void* data
    # Not MAP_SHARED: before Linux 6.7 a sealed file cannot be mapped so. The pages are shared.
    data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
    if data == MAP_FAILED:
        raise OSError(errno, "the image of the decks cannot be mapped")
    mapping.data = data
    mapping.size = size
    return mapping


def open_image(int descriptor, size):
    """Map a file of ``size`` bytes, and return its decks as a list of (tenant_id, Deck). They keep
    the mapping, not the descriptor. ``InvalidImage``, a ValueError, if the file is not an image or
    is damaged; OSError if it cannot be mapped. Releases the GIL for each deck."""
    cdef Mapping mapping
    cdef const header_t* header
    cdef const entry_t* entries
    cdef const uint8_t* data
    cdef Deck deck
    cdef uint64_t i
    cdef bint is_valid
    if size < <Py_ssize_t> sizeof(header_t):
        raise InvalidImage("the file has no decks")
    mapping = _map(descriptor, size)
    data = <const uint8_t*> mapping.data
    _check_head(data, mapping.size)
    header = <const header_t*> data
    entries = <const entry_t*> (data + sizeof(header_t))
    found = []
    for i in range(header.deck_count):
        if (
            entries[i].offset % ALIGNMENT
            or entries[i].offset > mapping.size
            or entries[i].size > mapping.size - entries[i].offset
        ):
            raise InvalidImage("a deck is outside the file")
        deck = Deck.__new__(Deck)
        deck.mapping = mapping
        release(deck.tables.nodes)
        with nogil:
            is_valid = _open_deck(data + entries[i].offset, &entries[i], deck.tables)
        if not is_valid:
            # The tables may have pointers of the file.
            memset(deck.tables, 0, sizeof(tables_t))
            raise InvalidImage(f"the deck of tenant {entries[i].tenant_id} is damaged")
        deck.revision = entries[i].revision
        found.append((entries[i].tenant_id, deck))
    return found
