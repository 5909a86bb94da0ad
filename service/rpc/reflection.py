"""What server reflection describes: the files of the default pool of descriptors, with the
comments of our protos.

protobuf's pool drops the comments, so the build keeps them in a file of their own. The pool finds a
service by its name, but not its methods, for which grpcurl asks when it describes one.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

# Beside the generated modules; setup.py writes it.
_COMMENTS = files("tollwire.v1") / "descriptors.binpb"


class Symbols:
    """The default pool, which also finds methods and has comments. KeyError for what it lacks."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()
        described = descriptor_pb2.FileDescriptorSet.FromString(_COMMENTS.read_bytes())
        self._described = {file.name: file for file in described.file}

    def FindFileByName(self, name: str) -> DescribedFile:
        return DescribedFile(self._pool.FindFileByName(name), self._described)

    def FindFileContainingSymbol(self, symbol: str) -> DescribedFile:
        return DescribedFile(self._file_of(symbol), self._described)

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


class DescribedFile:
    """What reflection reads of a file's descriptor."""

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
        # The pool's own, which has no json_name: grpcurl shows the names of the protos for that.
        self._file.CopyToProto(proto)
        described = self._described.get(self.name)
        if described is not None:
            proto.source_code_info.CopyFrom(described.source_code_info)
