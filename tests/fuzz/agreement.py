"""What a target of the fuzzer is, and how the core and the library come to agree or to part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from tests.fuzz.fields import Grammar


class Difference(AssertionError):
    """The core and the library do not agree about an input."""


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` returns how many items of an input it has compared; None: both refuse it."""

    name: str
    about: str
    grammar: Grammar
    check: Callable[[bytes], int | None]


def accepted_alike(core: object | None, library: object | None) -> bool:
    """Whether there is something to compare. Difference where only one accepts the input."""
    if (core is None) != (library is None):
        raise Difference(f"only {'the library' if core is None else 'the core'} accepts it")
    return core is not None


def parsed(message: type[Message], data: bytes) -> Any:
    """What the library reads; None: it refuses."""
    try:
        return message.FromString(data)
    except DecodeError:
        return None


def message_class(message: descriptor_pb2.DescriptorProto) -> type[Message]:
    """For a message that is in no .proto file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/fuzz.proto", package="tests.fuzz", syntax="proto3", message_type=[message]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tests.fuzz.{message.name}"))
