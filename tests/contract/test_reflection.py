"""Server reflection, both versions, has the comments of the protos."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from tests.contract.curl import REPOSITORY
from tests.contract.matrix import SERVICES

PATHS = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
OURS = [service.full_name for service in SERVICES if service.file.package == "tollwire.v1"]


def files(address: str, path: str, **request: str) -> dict[str, FileDescriptorProto]:
    with grpc.insecure_channel(address) as channel:
        ask = channel.stream_stream(
            path,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = iter([reflection_pb2.ServerReflectionRequest(**request)])
        [answer] = ask(asked, timeout=30)
    described = map(
        FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto
    )
    return {file.name: file for file in described}


@pytest.mark.parametrize("path", PATHS)
def test_every_message_and_method_comes_with_its_comment(address: str, path: str) -> None:
    found: dict[str, FileDescriptorProto] = {}
    for name in OURS:
        found |= files(address, path, file_containing_symbol=name)
    own = [file for file in found.values() if file.package == "tollwire.v1"]
    protos = {path.name for path in (REPOSITORY / "proto/tollwire/v1").glob("*.proto")}
    # No message has a field of it: reasons are sent as text.
    assert {file.name.rpartition("/")[2] for file in own} == protos - {"error_reason.proto"}
    assert "google/protobuf/timestamp.proto" in found
    for file in own:
        comments = {
            tuple(place.path): place.leading_comments for place in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            assert comments[4, index], message.name
            for number, field in enumerate(message.field):
                assert comments[4, index, 2, number], (message.name, field.name)
        for index, service in enumerate(file.service):
            for number, method in enumerate(service.method):
                assert comments[6, index, 2, number], method.name


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "request_",
    [
        {"file_by_filename": "tollwire/v1/types.proto"},
        {"file_containing_symbol": "tollwire.v1.Rate"},
        {"file_containing_symbol": "tollwire.v1.Rate.prefix"},
        {"file_containing_symbol": "tollwire.v1.Rounding"},
    ],
)
def test_a_file_is_found_by_each_of_its_symbols(
    address: str, path: str, request_: dict[str, str]
) -> None:
    file = files(address, path, **request_)["tollwire/v1/types.proto"]
    comments = [place.leading_comments for place in file.source_code_info.location]
    assert any("catch-all" in comment for comment in comments)
    # Without comments it equals that of the stubs.
    file.ClearField("source_code_info")
    assert file.message_type


@pytest.mark.external
def test_grpcurl_describes_with_comments(address: str) -> None:
    path = f"{REPOSITORY / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    grpcurl = shutil.which("grpcurl", path=path)
    if grpcurl is None:
        pytest.skip("grpcurl is not installed (make tools builds it, with Go)")
    for symbol, wanted in (
        ("tollwire.v1.Call", r"// ended_at: not before.*\n(.*//.*\n)*.*Timestamp ended_at = 9;"),
        ("tollwire.v1.RatingService", r"// RateCall .*\n(.*//.*\n)*.*rpc RateCall "),
        ("tollwire.v1.RatingService.UpdateRate", r"// UpdateRate .*\n(.*//.*\n)*.*rpc UpdateRate "),
    ):
        done = subprocess.run(
            [grpcurl, "-plaintext", address, "describe", symbol],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(wanted, done.stdout), done.stdout
