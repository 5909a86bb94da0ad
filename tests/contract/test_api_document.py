"""docs/api.md has every method and every reason, with the errors that the protos state."""

from __future__ import annotations

import re

from tests.contract.curl import REPOSITORY
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    error_reason_pb2,
    rating_service_pb2,
    tenant_service_pb2,
)

DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
PROTOS = REPOSITORY / "proto" / "tollwire" / "v1"
SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in [
        (rating_service_pb2, "RatingService"),
        (cdr_service_pb2, "CdrService"),
        (tenant_service_pb2, "TenantService"),
        (access_service_pb2, "AccessService"),
    ]
]
REASONS = [name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()[1:]]
# Documented once, for all methods.
EVERYWHERE = {
    *("MALFORMED_REQUEST", "INVALID_FIELD", "DATABASE_UNAVAILABLE"),
    *("TOO_MANY_STREAMS", "SHUTTING_DOWN"),
    *("TOKEN_REQUIRED", "TOKEN_INVALID", "ROLE_LACKS", "SCOPE_LACKS"),
}


def chapter(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def sections(service: str) -> dict[str, str]:
    """The text of each method's section."""
    parts = re.split(r"^### (\w+)\n", chapter(service), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed_reasons(section: str) -> list[str]:
    return re.findall(r"^\d+\. `(\w+)`", section, re.MULTILINE)


def comment_reasons(service: str, method: str) -> set[str]:
    """The reasons that the comment of the method in its proto names."""
    text = "".join(path.read_text(encoding="utf-8") for path in PROTOS.glob("*_service.proto"))
    body = text[text.index(f"service {service} {{") :]
    found = re.search(rf"((?:^  //.*\n)+)  rpc {method}\(", body, re.MULTILINE)
    assert found is not None, method
    return {word for word in re.findall(r"[A-Z]+(?:_[A-Z]+)+|BLOCKED", found[1]) if word in REASONS}


def test_every_method_has_its_section() -> None:
    for service in SERVICES:
        assert list(sections(service.name)) == [method.name for method in service.methods]


def test_every_method_lists_the_errors_that_its_proto_names() -> None:
    for service in SERVICES:
        for name, section in sections(service.name).items():
            listed = listed_reasons(section)
            assert listed, name
            assert listed[0] == "INVALID_FIELD", name
            assert set(listed) <= set(REASONS), name
            own = set(listed) - EVERYWHERE
            assert own == comment_reasons(service.name, name) - EVERYWHERE, name


def test_every_reason_is_in_the_table_with_its_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_]+) \| (.+) \|$", chapter("Errors"), re.MULTILINE)
    assert [reason for reason, _, _ in rows] == REASONS
    text = (PROTOS / "error_reason.proto").read_text(encoding="utf-8")
    for reason, code, meaning in rows:
        assert f"// ERROR_REASON_{reason}: {code}." in text, reason
        assert meaning


def test_every_dimension_and_every_rule_is_documented() -> None:
    from tollwire.v1 import types_pb2

    usage = chapter("Usage summaries")
    for name in types_pb2.UsageDimension.keys()[1:]:
        assert f"| `{name.removeprefix('USAGE_DIMENSION_')}` |" in usage
    rules = re.findall(r"^\*\*(\d+)\. ", chapter("Rating rules"), re.MULTILINE)
    assert rules == [str(number) for number in range(1, 11)]


def test_every_link_of_the_document_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", DOCUMENT)
    for link in links:
        assert (REPOSITORY / "docs" / link).exists(), link
