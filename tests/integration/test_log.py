"""The log of a server that gets telephone numbers in every field: it contains none of them."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.integration.client import DEADLINE_SECONDS, Client, make_call
from tests.integration.methods import METHODS, RIGHT, Scene, send, set_scene
from tests.integration.serving import ServerProcess

# In several notations; no other part of a log has these digits.
KNOWN = "8675309"
NUMBERS = ("15558675309", "+1 (555) 867-5309", "sip:+15558675309@pbx.example;user=phone")
SEPARATORS = re.compile(r"[-\s.()/]")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "tollwire.db"


@pytest.fixture(scope="module")
def log(database: Path) -> Iterator[str]:
    """The complete log at the most verbose level, after the numbers were sent."""
    with (
        ServerProcess(
            f"sqlite:///{database}", TOLLWIRE_LOG_LEVEL="DEBUG", TOLLWIRE_LOG_FORMAT="json"
        ) as server,
        Client(server.address) as client,
    ):
        scene = set_scene(client)
        pour(client, scene)
        break_the_database(database)
        pour(client, scene)
        yield server.log()


def pour(client: Client, scene: Scene) -> None:
    for name in METHODS:
        for number in NUMBERS:
            message = RIGHT[name](scene)
            put_everywhere(message, number)
            ask(client, name, message.SerializeToString())
        right = RIGHT[name](scene).SerializeToString()
        ask(client, name, NUMBERS[0].encode())
        ask(client, name, right + b"\x0a\xff" + NUMBERS[0].encode())
    for metadata in (
        ("x-request-id", NUMBERS[0]),
        ("x-request-id", f"call-{NUMBERS[0]}"),
        ("authorization", f"Bearer tw_{NUMBERS[0]}_{'x' * 43}"),
        ("user-agent", NUMBERS[0]),
    ):
        for service, method in (("CdrService", "GetCdr"), ("RatingService", NUMBERS[0])):
            call = client.channel.unary_unary(f"/tollwire.v1.{service}/{method}")
            with contextlib.suppress(grpc.RpcError):
                call(b"", metadata=[metadata], timeout=DEADLINE_SECONDS)


def ask(client: Client, method: str, data: bytes) -> None:
    with contextlib.suppress(grpc.RpcError):
        send(client, method, data)


def put_everywhere(message: Message, number: str) -> None:
    """Set every text of the message to the number, also empty ones."""
    for field in message.DESCRIPTOR.fields:
        value: Any = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                value.append(number)
            else:
                setattr(message, field.name, number)
        elif field.message_type is not None and field.message_type.file.package == "tollwire.v1":
            if field.is_repeated and not value:
                value.append(GetMessageClass(field.message_type)())
            for one in value if field.is_repeated else [value]:
                if field.is_repeated or message.HasField(field.name):
                    put_everywhere(one, number)


def break_the_database(file: Path) -> None:
    """Makes statements with numbers fail, with an error that has no name."""
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        for table in ("cdrs", "extensions", "rate_versions", "uploads"):
            connection.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")


def test_no_number_is_in_the_log(log: str) -> None:
    assert KNOWN not in SEPARATORS.sub("", log)
    # The ends of a masked number: the numbers did reach the log.
    assert "*09" in log


def test_each_line_is_json_and_each_rpc_has_one(log: str) -> None:
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message", "pid"} <= line.keys() for line in lines)
    rpcs = [line for line in lines if line["logger"] == "tollwire.rpc"]
    assert len({line["request_id"] for line in rpcs if "*" not in line["request_id"]}) > 100
    of_rpcs = [line["request_id"] for line in rpcs if "*" not in line["request_id"]]
    assert len(set(of_rpcs)) == len(of_rpcs)
    defects = [line for line in rpcs if line["level"] == "ERROR"]
    assert defects
    assert all("no such table" in line["exception"] for line in defects)


def test_a_request_is_found_by_its_clients_request_id(tmp_path: Path) -> None:
    with (
        ServerProcess(f"sqlite:///{tmp_path}/tollwire.db") as server,
        Client(server.address) as client,
    ):
        tenant_id = client.new_tenant().id
        call = client.channel.unary_unary("/tollwire.v1.CdrService/CreateCdr")
        message = make_call(tenant_id + 1, NUMBERS[0])
        request = METHODS["CreateCdr"].input_type
        data = GetMessageClass(request)(call=message).SerializeToString()
        with pytest.raises(grpc.RpcError) as refused:
            call(data, metadata=[("x-request-id", "order-17")], timeout=DEADLINE_SECONDS)
        assert isinstance(refused.value, grpc.Call)
        assert ("x-request-id", "order-17") in list(refused.value.trailing_metadata() or ())
        assert server.terminate() == 0
        lines = server.log().splitlines()
    [line] = [line for line in lines if "CdrService/CreateCdr" in line]
    assert "NOT_FOUND" in line and "request_id=order-17" in line and " ms=" in line
    assert "reason=TENANT_NOT_FOUND" in line
    assert f"tenant_id={tenant_id + 1}" in line
