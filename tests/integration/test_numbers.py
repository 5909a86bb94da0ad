"""Rating rule 2 through the wire: notations of numbers, and numbers that cannot be matched."""

from __future__ import annotations

import grpc
import pytest

from tests.integration.client import (
    RATED,
    UNRATED,
    Client,
    make_call,
    outcome,
    refused,
)
from tollwire.v1 import types_pb2 as types

INVALID_NUMBER = types.UNRATED_REASON_INVALID_NUMBER


@pytest.mark.parametrize(
    "number",
    [
        "442079460000",
        "+442079460000",
        "+44 (20) 7946-0000",
        "+44.20/7946.0000",
        "sip:+442079460000@example.com",
        "SIPS:442079460000@example.com;user=phone",
        "Tel:+44-20-7946-0000;ext=5",
        "442079460000;npdi",
        "442079460000@sip:1",
        "(+44)2079460000",
        "  442079460000  ",
    ],
)
def test_the_ways_to_write_a_number(client: Client, deck: int, number: str) -> None:
    assert client.rate(make_call(deck, number)).matched_prefix == "44"


@pytest.mark.parametrize(
    "number",
    [
        "",
        "+",
        "++442079460000",
        "anonymous",
        "44207946000x",
        "tel:",
        "sip:@example.com",
        ";442079460000",
        "sip:tel:442079460000",
        "44\t2079460000",
        "44\u00a02079460000",
        "\u0664\u0664" + "2079460000",
        "\uff14\uff14" + "2079460000",
        "4" * 33,
        "#31#442079460000",
        "44*20",
        " sip:442079460000",
    ],
)
def test_numbers_that_cannot_be_matched(client: Client, deck: int, number: str) -> None:
    call = make_call(deck, number)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NUMBER", "call.destination_number"):
        client.rate(call)
    [rated] = client.batch([call])
    assert outcome(rated) == (UNRATED, INVALID_NUMBER, None, None)
    assert not rated.HasField("error")


def test_32_digits_are_a_number(client: Client, deck: int) -> None:
    assert client.rate(make_call(deck, "4" * 32)).matched_prefix == "44"


@pytest.mark.parametrize(
    ("number", "matched"),
    [
        ("0044207946", "44"),  # the international prefix is removed
        ("020 7946 0000", "44"),  # the national prefix becomes the country code
        ("(0)20 7946 0000", "44"),
        ("+020 7946 0000", "0"),  # a leading + is never rewritten
        ("+0044207946", "0"),
        ("44207946", "44"),  # neither prefix: as it is
        ("tel:0044207946", "44"),
        ("0 0 4 4 2 0", "44"),
        ("000", "0"),  # the international prefix is removed, and nothing after it
    ],
)
def test_the_tenants_dialling_rules(client: Client, number: str, matched: str) -> None:
    tenant = client.new_tenant(country_code="44", national_prefix="0", international_prefix="00")
    client.new_rate(tenant.id, "44")
    client.new_rate(tenant.id, "0")
    assert client.rate(make_call(tenant.id, number)).matched_prefix == matched


def test_a_rewritten_number_is_checked_after_the_rewriting(client: Client) -> None:
    tenant = client.new_tenant(country_code="4444", national_prefix="0", international_prefix="011")
    client.new_rate(tenant.id, "")
    bad = ["011", "0" + "2" * 29, "011+1"]
    good = ["0", "0" + "2" * 28, "011" + "1" * 32]
    results = client.batch(make_call(tenant.id, number) for number in bad + good)
    assert [rated.status for rated in results] == [UNRATED] * 3 + [RATED] * 3
