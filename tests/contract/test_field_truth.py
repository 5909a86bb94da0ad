"""Every list of the fields of a rate, a call and a CDR has the fields of the proto.

A list is read from the code, or found by its effect: a field is in the list if the result changes
when the field is cleared. A failure names the file, the list and the fields that are missing.
docs/development/add-a-field.md names the files in the order of the work.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.testing import CliRunner
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings

from benchmarks.subjects import imports as import_benchmark
from ratingcore import Deck, DeckBuilder, IncomingDeck, RateInfo
from ratingcore.record.records import records_of
from ratingcore.record.rows import ROW_FIELDS as CORE_ROW_FIELDS
from ratingcore.record.values import Content
from ratingcore.wire.call_parse import call_tags
from ratingcore.wire.rate_parse import import_tags
from tests.contract.names import MESSAGES
from tests.core.changes import info_of
from tests.core.decks import PlainRate, plain_rates
from tests.fuzz import decks as deck_fuzzing
from tests.fuzz import targets as call_fuzzing
from tests.integration.wire_oracle import oracle_rate
from tests.oracle import OracleRate
from tollwire.service.cli import cdrs as cli_cdrs
from tollwire.service.cli import deck_changes, deck_csv, failed_records
from tollwire.service.cli import rates as cli_rates
from tollwire.service.cli.call_files import OPTIONAL as OPTIONAL_OF_CALLS
from tollwire.service.cli.call_files import REQUIRED as REQUIRED_OF_CALLS
from tollwire.service.cli.connection import Client
from tollwire.service.cli.rates_import import import_rates
from tollwire.service.domain import model
from tollwire.service.rating.rate_checks import check_terms
from tollwire.service.rpc.conversion import cdrs as cdr_conversion
from tollwire.service.rpc.conversion import fields as conversion_fields
from tollwire.service.rpc.conversion import rates as rate_conversion
from tollwire.service.storage import cdr_rows, kept_rates
from tollwire.service.storage import rates as rate_storage
from tollwire.service.storage.schema.record_tables import CdrRow
from tollwire.service.storage.schema.tenant_tables import RateVersionRow
from tollwire.v1 import rating_service_pb2, types_pb2

ROOT = Path(__file__).resolve().parents[2]

RATE = {field.name for field in types_pb2.Rate.DESCRIPTOR.fields}
CALL = {field.name for field in types_pb2.Call.DESCRIPTOR.fields}
CDR = {field.name for field in types_pb2.Cdr.DESCRIPTOR.fields}
# What the server fills in, and whose the rate is. All others are the terms of a rate.
MADE_BY_THE_SERVER = {"id", "etag", "created_at", "updated_at", "rate_revision"}
OWNED = {"tenant_id"}
TERMS = RATE - MADE_BY_THE_SERVER - OWNED
# A mark of a line that could not be read, instead of a call.
MARK = {"unreadable"}

Names = Iterable[str]
List = tuple[str, str, Callable[[], Names], set[str]]


def wire(names: Names, **renamed: str) -> set[str]:
    """Names of the model or of the database as those of the wire."""
    plain = (renamed.get(name, re.sub("_(e8|ns|s|nanos|version_id)$", "", name)) for name in names)
    return set(plain) - {""}


@cache
def full(name: str) -> Any:
    """A message of types.proto with each field set."""
    message = getattr(types_pb2, name)()
    fill(message, message.DESCRIPTOR)
    return message


def fill(message: Message, descriptor: Descriptor) -> None:
    for field in descriptor.fields:
        if field.is_repeated:
            assert field.message_type is not None, f"fill {field.full_name} here"
            fill(getattr(message, field.name).add(), field.message_type)
        elif field.message_type is None:
            is_text = field.type == FieldDescriptor.TYPE_STRING
            is_bytes = field.type == FieldDescriptor.TYPE_BYTES
            setattr(message, field.name, "7" if is_text else b"7" if is_bytes else 1)
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            # In the order of the numbers, so that an end comes after its beginning.
            getattr(message, field.name).seconds = field.number
        elif field.message_type.full_name not in ("tollwire.v1.Cdr", "tollwire.v1.Call"):
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), field.message_type)


def noticed(name: str, result: Callable[[Any], object]) -> set[str]:
    """The fields of a message that change the result."""
    whole = full(name)
    found = set()
    for field in whole.DESCRIPTOR.fields:
        other = type(whole)()
        other.CopyFrom(whole)
        other.ClearField(field.name)
        if result(other) != result(whole):
            found.add(field.name)
    return found


def columns(table: Any) -> Names:
    return [column.key for column in table.__table__.columns]


def printed(show: Callable[[Client, Any], None]) -> Callable[[Any], object]:
    """What a command prints of a message."""

    @click.command()
    def command() -> None:
        show(Client("127.0.0.1:1"), message)

    message: Any = None

    def result(given: Any) -> object:
        nonlocal message
        message = given
        outcome = CliRunner().invoke(command, catch_exceptions=False)
        return outcome.output

    return result


def options(command: click.Command) -> set[str]:
    return {parameter.name or "" for parameter in command.params} & RATE


def written(path: str, begin: str, end: str) -> set[str]:
    """The words of a passage of a file."""
    text = (ROOT / path).read_text("utf-8")
    passage = text[text.index(begin) :]
    return set(re.findall(r"\w+", passage[: passage.index(end, len(begin))]))


def chapter(title: str) -> set[str]:
    """The words of a chapter of docs/api.md, in lower case."""
    text = (ROOT / "docs/api.md").read_text("utf-8")
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found, f"docs/api.md has no chapter {title}"
    return set(re.findall(r"\w+", rest.partition("\n## ")[0].lower()))


# --- Rates ----------------------------------------------------------------------------------------


def model_rate() -> model.Rate:
    """A rate with each field set."""
    kinds = get_type_hints(model.Rate)
    values = {
        field.name: {str: "7", bool: True}.get(kinds[field.name], 1) for field in fields(model.Rate)
    }
    return model.Rate(**(values | {"intervals": (model.Interval(1, 1, 1),)}))


def refused() -> set[str]:
    """The fields in which a rate is refused whose every value is wrong."""
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(model.Rate).items():
        values[name] = {int: -(2**63), str: "\0", bool: True}.get(kind, 2**100)
    values["intervals"] = (model.Interval(0, 0, 0),)
    values["effective_to_ns"] = 2**100
    return {one.field.partition("[")[0] for one in check_terms(model.Rate(**values))}


def rate_info() -> RateInfo:
    special: dict[str, Any] = {"intervals": ((5, 6, 7),), "version_id": 3, "rate_id": 3}
    special |= {"effective_from_ns": 10**9, "effective_to_ns": 2 * 10**9}
    kinds = get_type_hints(RateInfo)
    values = {name: {int: 9, str: "8", bool: True}.get(kinds[name]) for name in RateInfo._fields}
    return RateInfo(**(values | special))


def deck_of(info: RateInfo) -> Deck:
    builder = DeckBuilder()
    builder.put(*info)
    return builder.build(1)


def kept_by_a_deck() -> set[str]:
    (found,) = deck_of(rate_info())
    pairs = zip(rate_info()._asdict().items(), found, strict=True)
    return wire((name for (name, sent), stored in pairs if sent == stored), **IDS)


def accepted_by_the_invariants() -> set[str]:
    """The fields that a deck may have, each alone: its invariants compute the terms again."""
    info = rate_info()
    least = RateInfo(0, 0, "", "", 0, 1)
    found = set()
    for name in RateInfo._fields:
        deck = deck_of(least._replace(**{name: getattr(info, name)}))
        with suppress(AssertionError):
            deck._check()
            found.add(name)
    return wire(found, **IDS)


def incoming(info: RateInfo) -> IncomingDeck:
    deck = IncomingDeck(1)
    values = info._asdict()
    for name in ("version_id", "rate_id"):
        del values[name]
    for name in ("effective_from", "effective_to"):
        time_ns = values.pop(f"{name}_ns")
        values[name] = None if time_ns is None else divmod(time_ns, 10**9)
    deck.put(0, **values)
    deck.sort()
    return deck


def kept_by_an_import() -> set[str]:
    deck = incoming(rate_info())
    deck.number(3)
    (row,) = deck.rows(0, 1)
    pairs = zip(rate_info()._asdict().items(), row, strict=True)
    return wire((name for (name, sent), stored in pairs if sent == stored), **IDS)


def compared_by_an_import() -> set[str]:
    """The fields whose change makes a rate of a deck an updated one, or another one."""
    info = rate_info()
    other = {str: "7", bool: False, int: 11}
    kinds = get_type_hints(RateInfo)
    changed = {name: other.get(kinds[name]) for name in RateInfo._fields}
    changed |= {"intervals": ((5, 6, 8),), "effective_to_ns": None, "effective_from_ns": None}
    found = set()
    for name in RateInfo._fields:
        deck = incoming(info._replace(**{name: changed[name]}))
        updated, _ = deck.compare(deck_of(info), replace=False)
        if updated or name in ("prefix", "effective_from_ns"):
            found.add(name)
    return wire(found, **IDS)


def read_from_the_wire(rate: types_pb2.Rate) -> object:
    """What the core makes of a rate of a deck."""
    deck = IncomingDeck(rate.tenant_id)
    request = rating_service_pb2.ImportRatesRequest(tenant_id=rate.tenant_id, rates=[rate])
    unusual, _ = deck.read(request.SerializeToString())
    deck.number(3)
    return len(unusual), deck.rows(0, len(deck))


def noticed_by_the_core() -> set[str]:
    """Of a rate without intervals, which is a plain one; and whether it has intervals."""

    def result(rate: types_pb2.Rate) -> object:
        plain = types_pb2.Rate()
        plain.CopyFrom(rate)
        plain.ClearField("intervals")
        return read_from_the_wire(plain), read_from_the_wire(rate)[0]  # type: ignore[index]

    return noticed("Rate", result)


def from_the_bulk_insert() -> Names:
    return [column.key for column in rate_storage.TERMS]


def stored_argument_names() -> list[str]:
    """TERMS with each end of the window as one number."""
    names = [re.sub("_s$", "_ns", column.key) for column in rate_storage.TERMS]
    return [name for name in names if not name.endswith("_nanos")]


PLAIN = {
    "price_e8": "cost_per_minute",
    "increment": "billing_increment",
    "from_ns": "effective_from",
    "to_ns": "effective_to",
}


def used_of_a_plain_rate(result: Callable[[PlainRate], object]) -> set[str]:
    """The fields of a PlainRate that change the result."""
    plain = PlainRate("7")
    other = {str: "8", bool: True, int: 9, int | None: 9}
    kinds = get_type_hints(PlainRate)
    found = set()
    for name, kind in kinds.items():
        value = ((5, 6, 7),) if name == "intervals" else other[kind]
        if result(replace(plain, **{name: value})) != result(plain):
            found.add(name)
    return wire(found, **PLAIN)


def drawn() -> set[str]:
    """The fields of a PlainRate of which random tests try more than one value."""
    rates: list[PlainRate] = []

    @settings(max_examples=100, database=None, derandomize=True)
    @given(plain_rates())
    def draw(rate: PlainRate) -> None:
        rates.append(rate)

    draw()
    names = [field.name for field in fields(PlainRate)]
    return wire((name for name in names if len({getattr(r, name) for r in rates}) > 1), **PLAIN)


IDS = {"version_id": "etag", "rate_id": "id", "created_revision": "rate_revision"}
NOT_IN_WIRE = {"retired_revision": ""}

RATE_LISTS: list[List] = [
    (
        "service/domain/model.py",
        "Rate",
        lambda: wire((field.name for field in fields(model.Rate)), version_id="etag"),
        set(),
    ),
    (
        "service/storage/schema/tenant_tables.py",
        "RateVersionRow",
        lambda: wire(columns(RateVersionRow), **IDS, **NOT_IN_WIRE),
        set(),
    ),
    (
        "service/rating/rate_checks.py",
        "check_terms",
        refused,
        {"blocked", *OWNED, *MADE_BY_THE_SERVER},
    ),
    (
        "service/rpc/conversion/rates.py",
        "rate",
        lambda: [f.name for f, _ in rate_conversion.rate(model_rate()).ListFields()],
        set(),
    ),
    (
        "service/rpc/conversion/rates.py",
        "read_rate",
        lambda: noticed(
            "Rate", lambda rate: rate_conversion.read_rate(rate, conversion_fields.Violations())
        ),
        MADE_BY_THE_SERVER - {"id"},
    ),
    (
        "service/rpc/conversion/rates.py",
        "_UPDATABLE",
        lambda: rate_conversion._UPDATABLE,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "ratingcore/pricing/values.py",
        "RateInfo",
        lambda: wire(RateInfo._fields, **IDS),
        OWNED | (MADE_BY_THE_SERVER - {"id", "etag"}),
    ),
    (
        "ratingcore/deck/builder.pyx and deck.pyx",
        "DeckBuilder.put and the rates of a Deck",
        kept_by_a_deck,
        OWNED | (MADE_BY_THE_SERVER - {"id", "etag"}),
    ),
    (
        "ratingcore/pricing/terms.pyx",
        "are_complete",
        accepted_by_the_invariants,
        OWNED | (MADE_BY_THE_SERVER - {"id", "etag"}),
    ),
    (
        "ratingcore/wire/incoming_deck.pyx",
        "IncomingDeck.put and rows",
        kept_by_an_import,
        OWNED | (MADE_BY_THE_SERVER - {"id", "etag"}),
    ),
    (
        "ratingcore/wire/rate_intake.pyx",
        "the comparison of a deck with the present one",
        compared_by_an_import,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "ratingcore/wire/rate_parse.pyx and rate_intake.pyx",
        "parse_rate and intake_take",
        noticed_by_the_core,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "ratingcore/wire/rate_parse.pyx",
        "import_tags",
        lambda: import_tags()["Rate"],
        # Numbers of the server in a deck are ignored, whatever they are.
        {"id", "rate_revision"},
    ),
    (
        "service/storage/kept_rates.py",
        "_VERSION",
        lambda: wire((column.key for column in kept_rates._VERSION), **IDS, **NOT_IN_WIRE),
        {"id", "destination", "created_at", "updated_at"},
    ),
    ("service/cli/rates.py", "LIST_COLUMNS", lambda: noticed("Rate", listed), {"rate_revision"}),
    (
        "service/cli/rates.py",
        "_show_rate",
        lambda: noticed("Rate", printed(cli_rates._show_rate)),
        set(),
    ),
    (
        "service/cli/rates.py",
        "the options of rates add",
        lambda: options(cli_rates.add_rate),
        MADE_BY_THE_SERVER,
    ),
    (
        "service/cli/rates.py",
        "the options of rates update",
        lambda: options(cli_rates.update_rate),
        OWNED | (MADE_BY_THE_SERVER - {"etag"}),
    ),
    (
        "service/cli/deck_csv.py",
        "COLUMNS",
        lambda: deck_csv.COLUMNS,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "service/cli/deck_csv.py",
        "_row",
        lambda: noticed("Rate", deck_csv._row),
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "service/cli/rates_import.py",
        "the help of rates import",
        lambda: set(re.findall(r"\w+", import_rates.help or "")) & TERMS,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "service/cli/deck_changes.py",
        "_terms",
        lambda: noticed("Rate", priced_terms),
        {"prefix", *OWNED, *MADE_BY_THE_SERVER},
    ),
    (
        "service/cli/rates.py",
        "fields_of_cdr",
        lambda: noticed("Rate", shown_with_a_cdr),
        # A blocked rate prices no call.
        {"blocked", *OWNED, *(MADE_BY_THE_SERVER - {"id"})},
    ),
    (
        "README.md",
        "the columns of a deck",
        lambda: written("README.md", "**Decks** are CSV", "(a JSON list)") & RATE,
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "docs/api.md",
        "the rating rules",
        lambda: chapter("Rating rules") & TERMS,
        # No rule depends on the destination.
        {"destination", *OWNED, *MADE_BY_THE_SERVER},
    ),
    (
        "docs/api.md",
        "the limits",
        lambda: chapter("Limits") & TERMS,
        # Times have a range of their own, and a switch has none.
        {"effective_from", "effective_to", "blocked", *OWNED, *MADE_BY_THE_SERVER},
    ),
    ("tests/contract/names.py", "Rate", lambda: MESSAGES["Rate"].split(), set()),
    (
        "tests/oracle.py",
        "OracleRate",
        lambda: wire(field.name for field in fields(OracleRate)),
        {"destination", *OWNED, *MADE_BY_THE_SERVER},
    ),
    (
        "tests/integration/wire_oracle.py",
        "oracle_rate",
        lambda: noticed("Rate", rated_by_the_oracle),
        {"destination", *OWNED, *MADE_BY_THE_SERVER},
    ),
    (
        "tests/core/decks.py",
        "PlainRate",
        lambda: wire((field.name for field in fields(PlainRate)), **PLAIN),
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "tests/core/decks.py",
        "PlainRate.arguments",
        lambda: used_of_a_plain_rate(lambda rate: rate.arguments(1)),
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "tests/core/decks.py",
        "PlainRate.oracle",
        lambda: used_of_a_plain_rate(PlainRate.oracle),
        {"destination", *OWNED, *MADE_BY_THE_SERVER},
    ),
    ("tests/core/decks.py", "plain_rates", drawn, OWNED | MADE_BY_THE_SERVER),
    (
        "tests/core/changes.py",
        "info_of",
        lambda: used_of_a_plain_rate(lambda rate: info_of(rate, 1)),
        OWNED | MADE_BY_THE_SERVER,
    ),
    (
        "tests/fuzz/decks.py",
        "_VALUES",
        lambda: {*deck_fuzzing._VALUES, "intervals", "effective_from", "effective_to"} & RATE,
        MADE_BY_THE_SERVER,
    ),
    (
        "benchmarks/subjects/imports.py",
        "rate_rows",
        lambda: wire(rows_of_the_benchmark(), **IDS, **NOT_IN_WIRE),
        set(),
    ),
]


def rated_by_the_oracle(rate: types_pb2.Rate) -> object:
    return oracle_rate(rate) if rate.cost_per_minute else None


def listed(rate: types_pb2.Rate) -> object:
    return [column.value(rate) for column in cli_rates.LIST_COLUMNS]


def priced_terms(rate: types_pb2.Rate) -> object:
    if not rate.cost_per_minute:
        return None
    return deck_changes._terms(rate, deck_changes._FIRST)


def shown_with_a_cdr(rate: types_pb2.Rate) -> object:
    return printed(cli_cdrs._show_cdr)(types_pb2.Cdr(rate=rate))


def rows_of_the_benchmark() -> Names:
    """The columns of the rows that the benchmark writes: those of the table, or it fails."""
    source = (ROOT / "benchmarks/subjects/imports.py").read_text("utf-8")
    (function,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == import_benchmark.rate_rows.__name__
    )
    return [
        key.value
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]


# --- Calls and CDRs -------------------------------------------------------------------------------


def kept_by_records() -> set[str]:
    content = Content(1, "2", 3, "4", "5", 1, 2, 6, 7, 8)
    found = records_of([content]).content(0)
    pairs = zip(content._asdict().items(), found, strict=True)
    return wire(name for (name, sent), stored in pairs if sent == stored)


def model_cdr() -> model.Cdr:
    call = model.Call(1, "2", model.Direction(1), model.Disposition(1), 3, 4, 5, 6, "7", "8", 9)
    reversal = model.Reversal(1, model.ReversalRequest("2", "3"), 4, 5)
    return model.Cdr(
        id=1,
        call=call,
        tenant=model.Tenant(id=1),
        extension=model.Extension(id=6),
        status=model.RatingStatus.RATED,
        unrated_reason=model.UnratedReason.NO_RATE,
        bill_seconds=1,
        cost_e8=10**8,
        rate=model_rate(),
        rate_revision=1,
        upload_id=1,
        created_at_ns=1,
        reversal=reversal,
        generation=1,
        replaces_cdr_id=2,
        replaced_by_cdr_id=3,
    )


COST = {"cost_units": "cost", "cost_fraction_e8": "cost", "rate_version_id": "rate"}
# The names of columns, and the fields that they show a part of.
EXPORTED = {"currency": "tenant", "rate_id": "rate", "destination": "rate"}
EXPORTED |= {"reversed_at": "reversal"}
# What a CDR is not stored with: the resources that its ids name, and what other CDRs say.
DERIVED = {"tenant", "extension", "matched_prefix", "reversal"}
DERIVED |= {"replaces_cdr_id", "replaced_by_cdr_id"}

CALL_LISTS: list[List] = [
    (
        "service/domain/model.py",
        "Call",
        lambda: wire(field.name for field in fields(model.Call)),
        MARK,
    ),
    (
        "ratingcore/record/values.py",
        "Content",
        lambda: wire(Content._fields),
        {"occurrence", *MARK},
    ),
    (
        "ratingcore/record/records.pyx",
        "records_of and Records.content",
        kept_by_records,
        {"occurrence", *MARK},
    ),
    ("ratingcore/wire/call_parse.pyx", "call_tags", call_tags, set()),
    (
        "service/cli/call_files.py",
        "REQUIRED and OPTIONAL",
        lambda: ("tenant_id", *REQUIRED_OF_CALLS, *OPTIONAL_OF_CALLS),
        MARK,
    ),
    ("service/cli/failed_records.py", "_FIELDS", lambda: failed_records._FIELDS, MARK),
    ("tests/contract/names.py", "Call", lambda: MESSAGES["Call"].split(), set()),
    (
        "tests/fuzz/targets.py",
        "_CALL",
        lambda: {*call_fuzzing._CALL, "started_at", "ended_at", "unreadable"} & CALL,
        set(),
    ),
    (
        "docs/api.md",
        "the rating rules",
        lambda: chapter("Rating rules") & CALL,
        {"tenant_id", *MARK},
    ),
]

CDR_LISTS: list[List] = [
    (
        "service/storage/schema/record_tables.py",
        "CdrRow",
        lambda: wire(columns(CdrRow), **COST),
        DERIVED,
    ),
    (
        "service/storage/cdr_rows.py",
        "ROW_FIELDS",
        lambda: wire(cdr_rows.ROW_FIELDS, **COST),
        {"id", *DERIVED},
    ),
    (
        "ratingcore/record/rows.pyx",
        "ROW_FIELDS",
        lambda: wire((name for name, _ in CORE_ROW_FIELDS), **COST),
        {"id", *DERIVED},
    ),
    (
        "service/rpc/conversion/cdrs.py",
        "cdr",
        lambda: [f.name for f, _ in cdr_conversion.cdr(model_cdr()).ListFields()],
        set(),
    ),
    (
        "service/cli/cdrs.py",
        "EXPORT_COLUMNS",
        lambda: wire(cli_cdrs.EXPORT_COLUMNS, **EXPORTED),
        {"extension", "generation", "replaces_cdr_id", "replaced_by_cdr_id"},
    ),
    (
        "service/cli/cdrs.py",
        "_export_row",
        lambda: noticed("Cdr", cli_cdrs._export_row),
        {"extension", "generation", "replaces_cdr_id", "replaced_by_cdr_id"},
    ),
    (
        "service/cli/cdrs.py",
        "LIST_COLUMNS",
        lambda: noticed("Cdr", lambda cdr: [c.value(cdr) for c in cli_cdrs.LIST_COLUMNS]),
        {"matched_prefix", "rate_revision", "generation", "replaces_cdr_id", "replaced_by_cdr_id"},
    ),
    (
        "service/cli/cdrs.py",
        "_show_cdr",
        lambda: noticed("Cdr", printed(cli_cdrs._show_cdr)),
        # The rate shows its prefix; the CDRs before and after show the generation.
        {"matched_prefix", "generation"},
    ),
    ("tests/contract/names.py", "Cdr", lambda: MESSAGES["Cdr"].split(), set()),
]

LISTS = [
    *((RATE, *one) for one in RATE_LISTS),
    *((CALL, *one) for one in CALL_LISTS),
    *((CDR, *one) for one in CDR_LISTS),
]


@pytest.mark.parametrize(
    ("declared", "file", "name", "found", "without"),
    LISTS,
    ids=[f"{file.rpartition('/')[2]}-{name}".replace(" ", "_") for _, file, name, *_ in LISTS],
)
def test_a_list_has_the_fields_of_the_proto(
    declared: set[str], file: str, name: str, found: Callable[[], Names], without: set[str]
) -> None:
    present = set(found())
    missing = declared - without - present
    assert not missing, f"{file}: {name} lacks {', '.join(sorted(missing))}"
    surplus = present - declared
    assert not surplus, f"{file}: {name} has {', '.join(sorted(surplus))}, which the proto has not"
    back = present & without
    assert not back, f"{file}: {name} has {', '.join(sorted(back))}; correct this test"


def test_the_core_takes_a_stored_rate_in_the_order_of_the_columns() -> None:
    assert stored_argument_names() == list(RateInfo._fields)


def test_the_core_and_the_storage_have_the_same_order_of_a_cdrs_columns() -> None:
    assert tuple(name for name, _ in CORE_ROW_FIELDS) == cdr_rows.ROW_FIELDS
