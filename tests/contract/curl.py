"""Clients that share no code with us: `buf curl` and `grpcurl`, both over server reflection.

All that they have of the service is its reflection. Responses are plain JSON with the protos' field
names, failures are ``Failed``.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.rpc import error_details_pb2

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60
CODES = {
    "invalid_argument": 3,
    "not_found": 5,
    "already_exists": 6,
    "failed_precondition": 9,
    "aborted": 10,
    "out_of_range": 11,
    "unimplemented": 12,
    "internal": 13,
    "unknown": 2,
}
Json = dict[str, Any]


@dataclass
class Failed(Exception):
    """An error as such a client shows it."""

    code: int
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)


def documents(text: str) -> list[Any]:
    """JSON documents one after another."""
    found = []
    decoder = json.JSONDecoder()
    at = 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


def proto_names(value: Any) -> Any:
    """With "countryCode" as "country_code", as in the protos."""
    if isinstance(value, dict):
        return {
            re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", name): proto_names(inner)
            for name, inner in value.items()
        }
    return [proto_names(inner) for inner in value] if isinstance(value, list) else value


def camel(name: str) -> str:
    """A field's name in JSON."""
    return re.sub("_([a-z])", lambda m: m[1].upper(), name)


class Curl:
    """A client program and its server."""

    name: str

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    def program(cls) -> str | None:
        """The path of the program; None if it is not installed."""
        folders = [str(REPOSITORY / ".tools/bin"), str(Path(sys.executable).parent)]
        for folder in folders:
            if found := shutil.which(cls.name, path=folder):
                return found
        return shutil.which(cls.name)

    def call(self, method: str, *messages: Json) -> list[Json]:
        """The responses of "Service/Method", with the protos' field names."""
        text = "".join(json.dumps(message) + "\n" for message in messages)
        return [proto_names(answer) for answer in documents(self.send(method, text))]

    def one(self, method: str, message: Json) -> Json:
        [answer] = self.call(method, message)
        return answer

    def mask(self, path: str) -> Any:
        """A field mask of one path, in the JSON of the program."""
        raise NotImplementedError

    def send(self, method: str, text: str) -> str:
        """The output of the program for the input ``text`` with ``-d @``."""
        raise NotImplementedError

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        program = self.program()
        assert program is not None
        return subprocess.run(
            [program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )


class BufCurl(Curl):
    name = "buf"
    flags = ("--protocol", "grpc", "--http2-prior-knowledge")

    def mask(self, path: str) -> Any:
        return camel(path)

    def send(self, method: str, text: str, *flags: str) -> str:
        url = f"http://{self.address}/{full(method)}"
        done = self.run("curl", *self.flags, *flags, "-d", "@-", url, given=text)
        if done.returncode:
            raise self._failed(done)
        return done.stdout

    def list(self, what: str) -> list[str]:
        """``what``: "services" or "methods"."""
        done = self.run("curl", *self.flags, f"--list-{what}", f"http://{self.address}")
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    @staticmethod
    def _failed(done: subprocess.CompletedProcess[str]) -> Exception:
        # Its exit code is the status code, three bits to the left; below 8 the program itself
        # failed.
        if done.returncode < 8:
            return AssertionError(done.stderr)
        error = json.loads(done.stderr)
        failed = Failed(done.returncode >> 3, error["message"])
        assert CODES[error["code"]] == failed.code
        for detail in error.get("details", []):
            data = base64.b64decode(detail["value"] + "==")
            if detail["type"] == "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(data)
                failed.reason, failed.domain = info.reason, info.domain
                failed.metadata = dict(info.metadata)
            if detail["type"] == "google.rpc.BadRequest":
                bad = error_details_pb2.BadRequest.FromString(data)
                failed.fields = [violation.field for violation in bad.field_violations]
        return failed


class GrpCurl(Curl):
    name = "grpcurl"

    def mask(self, path: str) -> Any:
        return {"paths": [path]}

    def send(self, method: str, text: str, *flags: str) -> str:
        done = self.run(
            "-plaintext", "-format-error", *flags, "-d", "@", self.address, full(method), given=text
        )
        if done.returncode:
            raise self._failed(done)
        return done.stdout

    def describe(self, symbol: str) -> str:
        done = self.run("-plaintext", self.address, "describe", symbol)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @staticmethod
    def _failed(done: subprocess.CompletedProcess[str]) -> Exception:
        # Its exit code is the status code plus 64; below that the program itself failed.
        if done.returncode < 64:
            return AssertionError(done.stderr)
        [error] = documents(done.stderr)
        failed = Failed(done.returncode - 64, error["message"])
        assert error["code"] == failed.code
        for detail in map(proto_names, error.get("details", [])):
            if detail["@type"].endswith("google.rpc.ErrorInfo"):
                failed.reason, failed.domain = detail["reason"], detail["domain"]
                failed.metadata = detail.get("metadata", {})
            if detail["@type"].endswith("google.rpc.BadRequest"):
                failed.fields = [one["field"] for one in detail["field_violations"]]
        return failed


CLIENTS: Iterable[type[Curl]] = (BufCurl, GrpCurl)


def full(method: str) -> str:
    """ "RatingService/RateCall" with its package; other packages are given in full."""
    return method if "." in method else f"tollwire.v1.{method}"
