"""The digest of one record, against SipHash-1-3 written from its paper."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore.record.record_digest import DIGEST_SIZE, digest_of_bad, digests
from ratingcore.record.records import Records, records_of
from ratingcore.record.upload import read_upload
from ratingcore.record.values import Content
from tests.core.contents import content
from tests.examples import examples
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2

_MASK = 2**64 - 1


def siphash_1_3(key: bytes, data: bytes) -> bytes:
    k0, k1 = struct.unpack("<2Q", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def rotated(word: int, bits: int) -> int:
        return (word << bits | word >> 64 - bits) & _MASK

    def mix() -> None:
        nonlocal a, b, c, d
        a, c = (a + b) & _MASK, (c + d) & _MASK
        b, d = rotated(b, 13) ^ a, rotated(d, 16) ^ c
        a = rotated(a, 32)
        c, a = (c + b) & _MASK, (a + d) & _MASK
        b, d = rotated(b, 17) ^ c, rotated(d, 21) ^ a
        c = rotated(c, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        d ^= word
        mix()
        a ^= word
    c ^= 0xFF
    for _ in range(3):
        mix()
    return struct.pack("<Q", a ^ b ^ c ^ d)


def expected(sent: Content) -> bytes:
    tenant, call_id, extension, caller, called, direction, disposition, seconds, start, end = sent
    integers = (
        tenant,
        extension,
        direction,
        disposition,
        seconds,
        start,
        -1 if end is None else end,
    )
    texts = f"{caller}\0{called}\0{call_id}\0".encode()
    return siphash_1_3(b"tollwirerecord.1", struct.pack("<7q", *integers) + texts)


@examples(100)
@given(
    st.lists(
        st.builds(
            content,
            st.integers(1, 2**63 - 1),
            st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40),
            caller_number=st.sampled_from(["", "1", "é" * 256]),
            destination_number=st.text("0123456789", max_size=20),
            duration_seconds=st.integers(0, 2**31 - 1),
            ended_at_ns=st.none() | st.integers(0, 2**63 - 2),
        ),
        max_size=4,
    )
)
def test_the_digest_of_a_good_record(contents: list[Content]) -> None:
    assert digests(records_of(contents)) == b"".join(map(expected, contents))


@examples(100)
@given(st.binary(max_size=40))
def test_the_digest_of_a_bad_record(source: bytes) -> None:
    assert digest_of_bad(source) == siphash_1_3(b"tollwirefailed.1", source)


def test_a_bad_record_is_known_by_its_bytes() -> None:
    calls = [types_pb2.Call(tenant_id=1, call_id=one) for one in "aab"]
    records = read_upload(pb.UploadCdrsRequest(calls=calls).SerializeToString(), 10)[3]
    made = [digest_of_bad(call.SerializeToString()) for call in calls]
    assert digests(records) == b"".join(made)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    "change",
    [
        *({"caller_number": "12"}, {"destination_number": "3"}, {"direction": 1}),
        *({"disposition": 2}, {"duration_seconds": 9}, {"started_at_ns": 5}, {"ended_at_ns": 0}),
        {"extension_id": 4},
    ],
)
def test_every_field_counts(change: dict[str, object]) -> None:
    assert digests(records_of([content()])) != digests(records_of([content(**change)]))


def test_the_digest_does_not_depend_on_the_position() -> None:
    records: Records = records_of([content(1, "a"), content(1, "b"), content(1, "a")])
    made = digests(records)
    assert made[:DIGEST_SIZE] == made[2 * DIGEST_SIZE :] != made[DIGEST_SIZE : 2 * DIGEST_SIZE]
    assert digests(records.part(1, 3)) == made[DIGEST_SIZE:]


def test_the_digest_never_changes() -> None:
    """Databases store it: after a change of the digest, records that were settled would be
    refused."""
    sent = Content(7, "c1", 3, "101", "+44 20 é", 2, 1, 63, 1_700_000_000_123_456_789, None)
    assert digests(records_of([sent])).hex() == "47e0e276b121f86c"
    assert digest_of_bad(b"").hex() == "cb350426c4cabe81"
