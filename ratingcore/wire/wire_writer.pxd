"""Writes protobuf varints, and amounts of money as text."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ..base.native cimport likely, store8, unlikely

cdef enum:
    MAX_VARINT = 10                 # bytes
    MAX_MONEY = 2 + 20 + 8          # bytes that write_money writes at most, with those past the end


cdef inline uint8_t* write_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint64_t _four_digits(uint32_t number) noexcept nogil:
    """Four digits as text in the lowest four bytes, the first digit lowest. Computes two numbers of
    two digits at once, then divides each by ten."""
    cdef uint32_t hundreds = number * 5243 >> 19
    cdef uint32_t pairs = hundreds | (number - hundreds * 100) << 16
    cdef uint32_t tens = (pairs * 103 >> 10) & 0x000F000F
    return 0x30303030 + (tens | (pairs - tens * 10) << 8)


cdef inline uint8_t* _write_units(uint8_t* at, uint64_t units) noexcept nogil:
    """Write an integer of 10 or more as text."""
    cdef uint8_t* end
    cdef uint32_t digits = 2
    cdef uint64_t above = 100
    while units >= above and digits < 19:
        digits += 1
        above *= 10
    at += digits
    end = at
    while digits:
        at -= 1
        at[0] = <uint8_t> (c'0' + units % 10)
        units //= 10
        digits -= 1
    return end


cdef inline uint8_t* write_money(
    uint8_t* at, uint8_t tag, uint64_t units, uint32_t fraction_e8, uint32_t decimals
) noexcept nogil:
    """Write a decimal with 4 to 8 digits after the point. ``decimals`` 0: no zeros after the
    4th."""
    cdef uint32_t high = fraction_e8 // 10_000
    cdef uint32_t low = fraction_e8 - high * 10_000
    cdef uint8_t* text = at + 2
    at[0] = tag
    if likely(units < 10):
        text[0] = <uint8_t> (c'0' + units)
        text += 1
    else:
        text = _write_units(text, units)
    store8(text, c'.' | _four_digits(high) << 8)
    text += 5
    if unlikely(low or decimals > 4):
        store8(text, _four_digits(low))
        text += 4
        if decimals:
            text -= 8 - decimals
        else:
            while (text - 1)[0] == c'0':
                text -= 1
    at[1] = <uint8_t> (text - at - 2)
    return text
