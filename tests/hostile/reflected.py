"""The methods of a server and their requests, read by server reflection alone.

Depends on no service and no generated stub but those of reflection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc

DEADLINE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Method:
    """One method, such as "/grpc.health.v1.Health/Check"."""

    path: str
    input_type: Descriptor
    output_type: Descriptor
    client_streaming: bool
    server_streaming: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def methods(channel: grpc.Channel, token: str = "") -> list[Method]:
    """All methods of all services that the server lists."""
    metadata = [("authorization", f"Bearer {token}")] if token else []

    def ask(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        [answer] = stub.ServerReflectionInfo(
            iter([request]), metadata=metadata, timeout=DEADLINE_SECONDS
        )
        assert not answer.HasField("error_response"), answer
        return answer

    listed = ask(pb.ServerReflectionRequest(list_services=""))
    names = [service.name for service in listed.list_services_response.service]
    files: dict[str, FileDescriptorProto] = {}
    for name in names:
        answer = ask(pb.ServerReflectionRequest(file_containing_symbol=name))
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            files[file.name] = file
    while missing := {one for file in files.values() for one in file.dependency} - set(files):
        for wanted in missing:
            answer = ask(pb.ServerReflectionRequest(file_by_filename=wanted))
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(data)
                files[file.name] = file
    pool = DescriptorPool()
    for file in _in_order(files):
        pool.Add(file)
    return [method for name in sorted(names) for method in _methods(pool, name)]


def _in_order(files: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Each after those that it depends on."""
    ordered: dict[str, FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for one in files[name].dependency:
                add(one)
            ordered[name] = files[name]

    for name in files:
        add(name)
    return list(ordered.values())


def _methods(pool: DescriptorPool, service: str) -> Iterator[Method]:
    for method in pool.FindServiceByName(service).methods:
        yield Method(
            f"/{service}/{method.name}",
            method.input_type,
            method.output_type,
            method.client_streaming,
            method.server_streaming,
        )
