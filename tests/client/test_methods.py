"""Each RPC has a method in both clients, with its messages as types, and answers as the stub."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.integration.client import Client as StubClient
from tests.integration.methods import METHODS, RIGHT, send, set_scene
from tests.integration.serving import ServerProcess
from tollwire.client import AsyncClient, CallInfo, Client, TollwireError, UnknownError
from tollwire.client.errors import CLASSES
from tollwire.client.parameters import DEFAULT
from tollwire.v1.types_pb2 import Rate

NAMES = sorted(METHODS)


def snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def fields_of(method: MethodDescriptor) -> list[str]:
    return [field.name for field in method.input_type.fields]


def returned(method: MethodDescriptor) -> str:
    """The type that a method should return, without its modules."""
    response: Any = method.output_type
    lists = [f for f in response.fields if f.is_repeated]
    is_list = len(lists) == 1 and not method.client_streaming
    if "page_token" in fields_of(method):
        return f"Pages[{lists[0].message_type.name}, {response.name}]"
    if method.server_streaming:
        is_items = is_list and len(response.fields) == 1
        return f"Stream[{lists[0].message_type.name if is_items else response.name}]"
    return response.name


def plain(annotation: str) -> str:
    """A type without its modules."""
    for module in ("access_service", "cdr_service", "rating_service", "tenant_service", "types"):
        annotation = annotation.replace(f"{module}_pb2.", "")
    return annotation.replace("empty_pb2.", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_rpc_has_a_method_with_its_types(client: type, name: str) -> None:
    method = METHODS[name]
    found = getattr(client, snake_case(name))
    signature = inspect.signature(found)
    prefix = "Async" if client is AsyncClient and method.server_streaming else ""
    if client is AsyncClient and "page_token" in fields_of(method):
        prefix = "Async"
    assert plain(signature.return_annotation) == prefix + returned(method)
    assert inspect.getdoc(found)
    own = {"timeout", "metadata", "info", "request", "requests", "self", "rates"}
    expected = (
        set() if method.client_streaming and method.server_streaming else {*fields_of(method)}
    )
    assert {*signature.parameters} - own == expected - {"rates"}
    for field in method.input_type.fields:
        parameter = signature.parameters.get(field.name)
        if parameter is not None and field.name != "rates":
            assert kind_of(field) in parameter.annotation
            assert parameter.annotation.endswith("| None")
            assert parameter.default is None
    assert signature.parameters["timeout"].default is DEFAULT


def kind_of(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return str(field.message_type.name)
    if field.enum_type is not None:
        return f"{field.enum_type.name}.ValueType"
    kinds = {field.CPPTYPE_STRING: "str", field.CPPTYPE_BOOL: "bool", field.CPPTYPE_DOUBLE: "float"}
    return kinds.get(field.cpp_type, "int")


def test_no_method_is_left_of_an_rpc_that_does_not_exist() -> None:
    from tollwire.client.async_rpcs import AsyncRpcs
    from tollwire.client.rpcs import Rpcs

    rpcs = {snake_case(name) for name in NAMES}
    for generated in (Rpcs, AsyncRpcs):
        assert {name for name in vars(generated) if not name.startswith("_")} <= rpcs


@pytest.fixture(scope="module")
def stubs(server: ServerProcess) -> Iterator[StubClient]:
    with StubClient(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, environment={}) as connected:
        yield connected


def outcome(responses: list[Any]) -> Any:
    return sorted({type(response).__name__ for response in responses})


def expected_outcome(stubs: StubClient, name: str, request: Message) -> Any:
    """The messages in the responses of the stub, or the code of its error."""
    try:
        answers = send(stubs, name, request)
    except grpc.RpcError as error:
        return error.code()
    method = METHODS[name]
    lists = [f for f in method.output_type.fields if f.is_repeated]
    is_paged = "page_token" in fields_of(method)
    is_stream = method.server_streaming and not method.client_streaming
    if len(lists) == 1 and (is_paged or (is_stream and len(method.output_type.fields) == 1)):
        return outcome([item for answer in answers for item in getattr(answer, lists[0].name)])
    return outcome(answers)


def arguments_of(name: str, request: Any, *, as_keywords: bool) -> tuple[Any, dict[str, Any]]:
    method = METHODS[name]
    if name == "ImportRates":
        head = {field.name: value for field, value in request.ListFields() if field.name != "rates"}
        return (list(request.rates),), head
    if method.client_streaming:
        return ([request],), {}
    if as_keywords:
        return (), {field.name: value for field, value in request.ListFields()}
    return (request,), {}


def all_of(result: Any) -> list[Any]:
    if isinstance(result, Message):
        return [result]
    found = []
    for item in result:
        found.append(item)
        if getattr(item, "caught_up", False):  # WatchCdrs does not end by itself
            break
    if hasattr(result, "close"):
        result.close()
    return found


@pytest.mark.parametrize("as_keywords", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_answers_as_the_stub(
    client: Client, stubs: StubClient, name: str, as_keywords: bool
) -> None:
    expected = expected_outcome(stubs, name, RIGHT[name](set_scene(stubs)))
    request = RIGHT[name](set_scene(stubs))
    arguments, keywords = arguments_of(name, request, as_keywords=as_keywords)
    method = getattr(client, snake_case(name))
    if isinstance(expected, grpc.StatusCode):
        with pytest.raises(CLASSES[expected]) as caught:
            all_of(method(*arguments, **keywords))
        assert caught.value.reason
        assert caught.value.domain == "tollwire"
    else:
        assert outcome(all_of(method(*arguments, **keywords))) == expected


async def all_of_async(result: Any) -> list[Any]:
    if inspect.iscoroutine(result):
        return [await result]
    found = []
    async for item in result:
        found.append(item)
        if getattr(item, "caught_up", False):
            break
    if hasattr(result, "close"):
        await result.close()
    return found


@pytest.mark.parametrize("as_keywords", [False, True])
def test_every_asynchronous_method_answers_as_the_stub(
    server: ServerProcess, stubs: StubClient, as_keywords: bool
) -> None:
    async def run() -> None:
        async with AsyncClient(server.address, environment={}) as client:
            for name in NAMES:
                expected = expected_outcome(stubs, name, RIGHT[name](set_scene(stubs)))
                request = RIGHT[name](set_scene(stubs))
                arguments, keywords = arguments_of(name, request, as_keywords=as_keywords)
                method = getattr(client, snake_case(name))
                try:
                    found = outcome(await all_of_async(method(*arguments, **keywords)))
                except TollwireError as error:
                    assert type(error) is CLASSES[error.code], name
                    found = error.code
                assert found == expected, name

    asyncio.run(run())


def test_a_request_and_keywords_are_not_mixed(client: Client) -> None:
    request = GetMessageClass(METHODS["GetRate"].input_type)(id=1)
    with pytest.raises(TypeError, match="GetRateRequest or its fields as keywords, not both: id"):
        client.get_rate(request, id=2)


def test_the_revision_after_a_change_of_rates(client: Client, stubs: StubClient) -> None:
    tenant = stubs.new_tenant()
    rate = Rate(tenant_id=tenant.id, prefix="44", cost_per_minute="0.02", billing_increment=6)
    info = CallInfo()
    assert info.rate_revision is None
    client.create_rate(rate=rate, info=info)
    first = info.rate_revision
    assert first
    client.import_rates([], tenant_id=tenant.id, mode=1, info=info)
    assert info.rate_revision is not None
    assert info.rate_revision >= first
    assert client.get_tenant(id=tenant.id, info=info).id == tenant.id
    assert info.rate_revision is None


def test_each_status_code_has_a_class() -> None:
    assert set(CLASSES) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert CLASSES[grpc.StatusCode.UNKNOWN] is UnknownError
    assert len({*CLASSES.values()}) == len(CLASSES)


FOREIGN = """
import sys
# typing_extensions belongs to grpcio.
allowed = {"grpc", "google", "tollwire", "typing_extensions", *sys.stdlib_module_names}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        ours = name == "tollwire" or name.startswith(
            ("tollwire.v1", "tollwire.client", "tollwire.loopback"))
        if name.partition(".")[0] not in allowed or (name.startswith("tollwire") and not ours):
            raise ModuleNotFoundError(f"{name} is not installed")
sys.meta_path.insert(0, Nothing())
import tollwire.client
try:
    import click
except ModuleNotFoundError:
    print("works")
"""


def test_it_needs_nothing_but_grpc_and_protobuf() -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True)
    assert done.stdout == "works\n", done.stderr
