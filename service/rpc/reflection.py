"""The descriptors for server reflection: the default descriptor pool, with the comments of the
protos.

protobuf's pool does not contain comments, so the build writes them to a separate file. The pool
finds services by name but not methods, which grpcurl looks up to describe a method.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

# In the folder of the generated modules; setup.py writes it.
_COMMENTS = files("tollwire.v1") / "descriptors.binpb"


class Symbols:
    """The default pool, extended: finds methods too, and has comments. KeyError for unknown
    names."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileByName(self, name: str) -> DescribedFile:
        return DescribedFile(self._pool.FindFileByName(name), _described())

    def FindFileContainingSymbol(self, symbol: str) -> DescribedFile:
        return DescribedFile(self._file_of(symbol), _described())

    def _file_of(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


@functools.cache
def _described() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The descriptors with comments, by file. Read at their first use: most servers never need
    them."""
    described = descriptor_pb2.FileDescriptorSet.FromString(_COMMENTS.read_bytes())
    return {file.name: file for file in described.file}


class DescribedFile:
    """The part of a file's descriptor that reflection reads."""

    def __init__(
        self, file: FileDescriptor, described: dict[str, descriptor_pb2.FileDescriptorProto]
    ) -> None:
        self.name = file.name
        self._file = file
        self._described = described

    @property
    def dependencies(self) -> list[DescribedFile]:
        return [DescribedFile(file, self._described) for file in self._file.dependencies]

    def CopyToProto(self, proto: descriptor_pb2.FileDescriptorProto) -> None:
        # The pool's descriptor has no json_name, so grpcurl shows the field names of the protos.
        self._file.CopyToProto(proto)
        described = self._described.get(self.name)
        if described is not None:
            proto.source_code_info.CopyFrom(described.source_code_info)
