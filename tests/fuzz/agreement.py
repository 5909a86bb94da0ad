"""Targets of the fuzzer, and the comparison of the core with the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from tests.fuzz.fields import Grammar


class Difference(AssertionError):
    """The core and the library differ for an input."""


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` returns the number of compared items of an input; None: both refuse it."""

    name: str
    about: str
    grammar: Grammar
    check: Callable[[bytes], int | None]


def accepted_alike(core: object | None, library: object | None) -> bool:
    """Whether both accept the input. Difference if only one does."""
    if (core is None) != (library is None):
        raise Difference(f"only {'the library' if core is None else 'the core'} accepts it")
    return core is not None


def parsed(message: type[Message], data: bytes) -> Any:
    """The message as the library reads it; None: it refuses the input."""
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
