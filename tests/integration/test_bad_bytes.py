"""Bytes that are no valid request: truncated, random, with wrong wire types, not UTF-8, too
many."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.integration.client import Client, make_call, refusal_of
from tests.integration.methods import METHODS, RIGHT, Scene, send, set_scene
from tests.integration.serving import ServerProcess

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
# These have a parser of their own; all others have the library's.
READ_BY_HAND = ("BatchRateCalls", "StreamRateCalls")
FORBIDDEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@pytest.fixture(scope="module")
def scene(client: Client) -> Scene:
    return set_scene(client)


@pytest.fixture(scope="module", autouse=True)
def unharmed(server: ServerProcess, client: Client, scene: Scene) -> Iterator[None]:
    yield
    fresh = client.new_tenant()
    client.new_rate(fresh.id, "44", "0.0200", 6)
    assert client.rate(make_call(fresh.id, "4420", 7)).cost == "0.0040"
    assert "Traceback" not in server.log()


def code_of(client: Client, method: str, data: bytes) -> grpc.StatusCode:
    try:
        send(client, method, data)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert refusal.code not in FORBIDDEN, (method, data, refusal)
        return refusal.code
    return grpc.StatusCode.OK


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def delimited(number: int, payload: bytes) -> bytes:
    return tag(number, 2) + varint(len(payload)) + payload


PAYLOADS = {
    0: varint(2**64 - 1),
    1: b"\xff" * 8,
    2: varint(3) + b"\xff\xfe\x00",
    3: b"",  # a group that never ends
    4: b"",  # an end of a group that never began
    5: b"\xff" * 4,
    6: b"",  # no such type
    7: b"",
}


def paths(descriptor: Descriptor, above: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The numbers of every field, from the request down."""
    for field in descriptor.fields:
        yield (*above, field.number)
        if field.message_type is not None and len(above) < 3:
            yield from paths(field.message_type, (*above, field.number))


def wrapped(path: tuple[int, ...], wire_type: int) -> bytes:
    *outer, last = path
    data = tag(last, wire_type) + PAYLOADS[wire_type]
    for number in reversed(outer):
        data = delimited(number, data)
    return data


@pytest.mark.parametrize("method", list(METHODS))
def test_fields_of_a_wrong_wire_type(client: Client, scene: Scene, method: str) -> None:
    right = RIGHT[method](scene).SerializeToString()
    cases = []
    for path in paths(METHODS[method].input_type):
        for wire_type in PAYLOADS:
            if method.startswith("Create") and wire_type == 0:
                continue  # an id near the end of int64 is valid, and would use all ids
            cases.append(wrapped(path, wire_type))
            if method in READ_BY_HAND:
                cases.append(right + wrapped(path, wire_type))
    # In parallel, because the end of an import takes the server a moment.
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(partial(code_of, client, method), cases):
            pass


@pytest.mark.parametrize("method", list(METHODS))
def test_requests_that_are_cut_off(client: Client, scene: Scene, method: str) -> None:
    right = RIGHT[method](scene).SerializeToString()
    for end in range(len(right)):
        code_of(client, method, right[:end])
    # Within the last field the request is certainly damaged.
    assert code_of(client, method, delimited(1, b"")[:1]) == INVALID_ARGUMENT


@pytest.mark.parametrize("method", list(METHODS))
def test_random_bytes(client: Client, scene: Scene, method: str) -> None:
    chance = random.Random(method)
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 55, 1000):
        code_of(client, method, chance.randbytes(length))
    if method.startswith(("Create", "Delete")):
        return
    right = RIGHT[method](scene).SerializeToString()
    for _ in range(5 if method == "ImportRates" else 30):
        if right:
            data = bytearray(right)
            data[chance.randrange(len(data))] = chance.randrange(256)
            code_of(client, method, bytes(data))


def text_paths(descriptor: Descriptor, above: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*above, field.number)
        elif field.message_type is not None:
            yield from text_paths(field.message_type, (*above, field.number))


TEXTS = [
    pytest.param(method, path, id=f"{method}-{'.'.join(map(str, path))}")
    for method, descriptor in METHODS.items()
    for path in text_paths(descriptor.input_type)
]


@pytest.mark.parametrize(("method", "path"), TEXTS)
def test_text_that_is_not_utf_8(
    client: Client, scene: Scene, method: str, path: tuple[int, ...]
) -> None:
    for text in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        *outer, last = path
        data = delimited(last, text)
        for number in reversed(outer):
            data = delimited(number, data)
        assert code_of(client, method, data) == INVALID_ARGUMENT, text


def test_a_malformed_message_is_refused_with_its_reason(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        send(client, "GetTenant", b"\xff")
    assert refusal_of(caught.value).reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("method", ["UploadCdrs", "StreamRateCalls"])
def test_a_malformed_message_in_a_stream_keeps_the_answers_before_it(
    client: Client, scene: Scene, method: str
) -> None:
    right = RIGHT[method](scene)
    path = f"/{METHODS[method].containing_service.full_name}/{method}"
    stream = client.channel.stream_stream(path)
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in stream(iter([right.SerializeToString(), b"\xff"])):
            answers.append(answer)
    assert refusal_of(caught.value).reason == "MALFORMED_REQUEST"
    assert len(answers) == 1


def test_unknown_fields_are_ignored(client: Client) -> None:
    """A newer client may send fields that this server does not have."""
    own = set_scene(client)
    extra = delimited(1000, b"new") + tag(1001, 0) + varint(7)
    for method in ("RateCall", "BatchRateCalls", "ListCdrs", "UploadCdrs", "GetTenant"):
        right = RIGHT[method](own).SerializeToString()
        assert code_of(client, method, right + extra) == grpc.StatusCode.OK


def test_a_message_that_is_too_large_is_refused(client: Client, scene: Scene) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        send(client, "BatchRateCalls", delimited(1000, bytes(40 * 2**20)))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods_and_services(client: Client) -> None:
    for path in ("/tollwire.v1.RatingService/Nothing", "/tollwire.v1.Nothing/Get", "/x"):
        with pytest.raises(grpc.RpcError) as caught:
            client.channel.unary_unary(path)(b"")
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
