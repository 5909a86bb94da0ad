"""Generates the methods of ``tollwire.client`` from the compiled protos, as a step of the build.

usage: generate_client.py DESCRIPTORS FOLDER

Writes rpcs.py (Client) and async_rpcs.py (AsyncClient) into FOLDER: one typed method for each RPC
of each service, with the fields of its request as keyword arguments. The shape of an RPC decides
what its method returns:

unary                               the response
unary with page_token               the items of all pages
server streaming, and the response  the items
has one repeated message and no
other field
other server streaming              the responses
client streaming, one response      no method: client.py and async_client.py have it

DESCRIPTORS is a FileDescriptorSet with the comments of the protos, which become the docstrings.
Imports nothing of the project: nothing is built yet when it runs.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

Field = pb.FieldDescriptorProto
# Unary RPCs whose time depends on the amount of data: they have no deadline by default.
LONG = {"SummarizeUsage", "RateUnrated", "ReverseUpload"}
# The parameters that every method has.
RESERVED = {"self", "timeout", "metadata", "info"}
SCALARS = {
    Field.TYPE_STRING: "str",
    Field.TYPE_BYTES: "bytes",
    Field.TYPE_BOOL: "bool",
    Field.TYPE_DOUBLE: "float",
    Field.TYPE_FLOAT: "float",
}
HEADER = '''"""Generated from the protos by proto/generate_client.py. Do not edit."""

# ruff: noqa

from __future__ import annotations

import datetime
from collections.abc import {abstract}

from tollwire.client.{base} import {calls}, {pages}, {stream}
from tollwire.client.parameters import DEFAULT, CallInfo, Default, Metadata, message
'''


@dataclass(slots=True)
class Rpc:
    """One RPC, with what its method needs to know of its messages."""

    service: str
    method: pb.MethodDescriptorProto
    doc: str
    request: pb.DescriptorProto
    response: pb.DescriptorProto

    @property
    def name(self) -> str:
        return snake_case(self.method.name)

    @property
    def is_paged(self) -> bool:
        return any(field.name == "page_token" for field in self.request.field)

    @property
    def items(self) -> pb.FieldDescriptorProto | None:
        """The field with the items of a page or of a stream; None if responses are returned."""
        fields = list(self.response.field)
        lists = [field for field in fields if field.label == Field.LABEL_REPEATED]
        is_stream = self.method.server_streaming and not self.method.client_streaming
        if len(lists) == 1 and (self.is_paged or (is_stream and len(fields) == 1)):
            return lists[0]
        return None


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def main(described: Path, folder: Path) -> None:
    files = pb.FileDescriptorSet.FromString(described.read_bytes()).file
    rpcs = list(all_rpcs(list(files)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rpcs.py").write_text("".join(module(rpcs, list(files), is_async=False)), "utf-8")
    (folder / "async_rpcs.py").write_text(
        "".join(module(rpcs, list(files), is_async=True)), "utf-8"
    )


def all_rpcs(files: list[pb.FileDescriptorProto]) -> Iterator[Rpc]:
    messages = {f".{f.package}.{m.name}": m for f in files for m in f.message_type}
    messages[".google.protobuf.Empty"] = pb.DescriptorProto(name="Empty")
    for file in files:
        comments = {
            tuple(place.path): place.leading_comments for place in file.source_code_info.location
        }
        for i, service in enumerate(file.service):
            for j, method in enumerate(service.method):
                doc = comments.get((6, i, 2, j), "").strip("\n")
                rpc = Rpc(
                    service.name,
                    method,
                    "\n".join(line.removeprefix(" ") for line in doc.splitlines()),
                    messages[method.input_type],
                    messages[method.output_type],
                )
                if taken := RESERVED & {field.name for field in rpc.request.field}:
                    raise SystemExit(f"{rpc.request.name}: the names {taken} are parameters")
                yield rpc


class Types:
    """The Python types of fields and messages. ``modules``: those that were used."""

    def __init__(self, files: list[pb.FileDescriptorProto]) -> None:
        self.modules: set[str] = set()
        self._module_of = {
            f".{file.package}.{one.name}": module_of(file.name)
            for file in files
            for one in [*file.message_type, *file.enum_type]
        }

    def named(self, full_name: str) -> str:
        module = self._module_of.get(full_name)
        if module is None:  # .google.protobuf.Timestamp
            name = full_name.rpartition(".")[2]
            module = f"google.protobuf.{snake_case(name)}_pb2"
        self.modules.add(module)
        return f"{module.rpartition('.')[2]}.{full_name.rpartition('.')[2]}"

    def item(self, field: pb.FieldDescriptorProto) -> str:
        if field.type == Field.TYPE_MESSAGE:
            name = self.named(field.type_name)
            return f"{name} | datetime.datetime" if name.endswith(".Timestamp") else name
        if field.type == Field.TYPE_ENUM:
            return f"{self.named(field.type_name)}.ValueType"
        return SCALARS.get(field.type, "int")

    def parameter(self, field: pb.FieldDescriptorProto) -> str:
        item = self.item(field)
        return f"Iterable[{item}]" if field.label == Field.LABEL_REPEATED else item


def module_of(proto: str) -> str:
    return proto.removesuffix(".proto").replace("/", ".") + "_pb2"


def module(rpcs: list[Rpc], files: list[pb.FileDescriptorProto], *, is_async: bool) -> list[str]:
    types = Types(files)
    prefix = "Async" if is_async else ""
    methods = [
        line
        for rpc in rpcs
        # The clients have hand-written methods for RPCs that take a stream and return one response.
        if rpc.method.server_streaming or not rpc.method.client_streaming
        for line in method_lines(rpc, types, is_async=is_async)
    ]
    services = {service.name: module_of(file.name) for file in files for service in file.service}
    imports = sorted(
        [f"from {m.rpartition('.')[0]} import {m.rpartition('.')[2]}\n" for m in types.modules]
        + [f"from {m}_grpc import {name}Stub\n" for name, m in services.items()]
    )
    binding = [
        f"        self._{snake_case(name)} = {name}Stub(self._channel)\n" for name in services
    ]
    return [
        HEADER.format(
            abstract="AsyncIterable, Iterable" if is_async else "Iterable",
            base="async_calls" if is_async else "calls",
            calls=f"{prefix}Calls",
            pages=f"{prefix}Pages",
            stream=f"{prefix}Stream",
        ),
        *imports,
        f"\n\nclass {prefix}Rpcs({prefix}Calls):\n",
        f'    """The RPCs of all services, as methods of {prefix}Client."""\n\n',
        "    def _bind(self) -> None:\n",
        *binding,
        *methods,
    ]


def method_lines(rpc: Rpc, types: Types, *, is_async: bool) -> Iterator[str]:
    """The source of one method."""
    prefix = "Async" if is_async else ""
    request, response = types.named(rpc.method.input_type), types.named(rpc.method.output_type)
    sends_many, gets_many = rpc.method.client_streaming, rpc.method.server_streaming
    item = types.item(rpc.items) if rpc.items is not None else response
    if rpc.is_paged:
        result = f"{prefix}Pages[{item}, {response}]"
    elif gets_many:
        result = f"{prefix}Stream[{item}]"
    else:
        result = response
    # Methods that return an iterator send nothing before it is iterated or awaited.
    is_coroutine = is_async and not rpc.is_paged and not gets_many
    yield f"\n    {'async ' if is_coroutine else ''}def {rpc.name}(\n        self,\n"
    if sends_many:
        many = f"Iterable[{request}]"
        yield f"        requests: {f'{many} | AsyncIterable[{request}]' if is_async else many},\n"
        yield "        /,\n        *,\n"
    else:
        yield f"        request: {request} | None = None,\n        /,\n        *,\n"
        for field in rpc.request.field:
            if keyword.iskeyword(field.name):
                raise SystemExit(f"{rpc.request.name}.{field.name} is a keyword of Python")
            yield f"        {field.name}: {types.parameter(field)} | None = None,\n"
    yield "        timeout: float | Default | None = DEFAULT,\n        metadata: Metadata = (),\n"
    if not rpc.is_paged:
        yield "        info: CallInfo | None = None,\n"
    yield f"    ) -> {result}:\n"
    yield from docstring(rpc.doc)
    method = f"self._{snake_case(rpc.service)}.{rpc.method.name}"
    common = "timeout, metadata" if rpc.is_paged else "timeout, metadata, info"
    if sends_many:
        yield f"        return self._stream_stream({method}, requests, {common})\n"
        return
    fields = "".join(f"            {field.name}={field.name},\n" for field in rpc.request.field)
    yield f"        made = message(\n            {request},\n            request,\n"
    yield f"{fields}        )\n"
    if rpc.is_paged:
        assert rpc.items is not None, rpc.method.name
        taken = f"lambda page: (page.{rpc.items.name}, page.next_page_token)"
        yield f"        return self._pages({method}, made, {common}, {taken})\n"
    elif gets_many:
        taken = f"answer.{rpc.items.name}" if rpc.items is not None else "(answer,)"
        yield f"        return self._unary_stream(\n            {method}, made, {common},"
        yield f" lambda answer: {taken}\n        )\n"
    else:
        length = ", is_long=True" if rpc.method.name in LONG else ""
        awaited = "await " if is_coroutine else ""
        yield f"        return {awaited}self._unary({method}, made, {common}{length})\n"


def docstring(text: str) -> Iterator[str]:
    if "\\" in text or '"""' in text:
        raise SystemExit(f"the comment cannot be a docstring: {text}")
    lines = (text or "Undocumented.").splitlines()
    yield f'        """{lines[0]}\n'
    yield from (f"        {line}\n" for line in lines[1:])
    yield '        """\n'


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
