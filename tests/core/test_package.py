"""The package itself: its dependencies, and the error without its compiled modules."""

from __future__ import annotations

import copy
import importlib
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ratingcore
from ratingcore import Deck, DeckBuilder, Rating
from tollwire.service.domain import model

PACKAGE = Path(ratingcore.__file__).parent


def run(root: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python without site-packages and without the environment's paths."""
    return subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r}); {code}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_needs_the_standard_library_only() -> None:
    result = run(PACKAGE.parent, "import ratingcore; print(ratingcore.charge(7, 2000000, 6))")
    assert (result.stdout, result.stderr) == ("(12, 40)\n", "")


def test_without_the_compiled_modules_the_import_fails(tmp_path: Path) -> None:
    for source in PACKAGE.rglob("*.py"):
        target = tmp_path / "ratingcore" / source.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    result = run(tmp_path, "import ratingcore")
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr


def test_every_module_is_compiled() -> None:
    for name in ("deck.builder", "deck.deck", "pricing.money", "pricing.number"):
        module = importlib.import_module(f"ratingcore.{name}")
        assert not module.__file__.endswith(".py")


def test_constants_are_the_model_s() -> None:
    for name, status in model.RatingStatus.__members__.items():
        assert getattr(ratingcore, name) == status
    for name, reason in model.UnratedReason.__members__.items():
        assert getattr(ratingcore, name) == reason
    for name, rounding in model.Rounding.__members__.items():
        assert getattr(ratingcore, name) == rounding
    assert ratingcore.REFUSED not in set(model.RatingStatus)
    assert ratingcore.max_cost(4) * 10_000 == model.MAX_COST_E8
    for decimals in range(4, 9):
        assert ratingcore.max_cost(decimals) <= 2**64 - 1


def test_limits_are_the_model_s() -> None:
    builder = DeckBuilder()
    intervals = [(second, 1, 1) for second in range(1, model.MAX_INTERVALS + 1)]
    most = (model.MAX_PRICE_E8, model.MAX_BILLING_INCREMENT, model.MAX_PRICE_E8)
    builder.put(
        model.MAX_ID,
        model.MAX_ID,
        "9" * model.MAX_PREFIX_DIGITS,
        "\U0010ffff" * model.MAX_NAME_CHARS,
        *most,
        model.MAX_DURATION_SECONDS,
        intervals,
        model.MIN_TIMESTAMP_NS,
        model.MAX_TIMESTAMP_NS,
    )
    (rate,) = builder.build(1)
    assert (rate.effective_from_ns, rate.effective_to_ns) == (
        model.MIN_TIMESTAMP_NS,
        model.MAX_TIMESTAMP_NS,
    )
    assert rate.destination == "\U0010ffff" * model.MAX_NAME_CHARS


def test_all_lists_every_public_name() -> None:
    for name in ratingcore.__all__:
        assert hasattr(ratingcore, name)


def test_half_constructed_objects_are_harmless() -> None:
    deck = Deck.__new__(Deck)
    assert len(deck) == 0
    with pytest.raises(TypeError):
        Rating()
    rating = Rating.__new__(Rating)
    assert (rating.rate_id, rating.version_id, rating.destination) == (0, 0, "")
    assert (rating.cost_scaled, rating.matched_prefix, rating.billing_increment) == (None, "", 0)
    assert len(DeckBuilder.__new__(DeckBuilder).build(1)) == 0


def test_decks_cannot_be_pickled() -> None:
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        for thing in (Deck(), Deck().rate("4", 0, 1, True), DeckBuilder()):
            with pytest.raises(TypeError):
                copied(thing)


def test_nothing_can_be_set() -> None:
    deck = Deck()
    for name in ("revision", "rounding", "nbytes", "country_code", "new"):
        with pytest.raises(AttributeError):
            setattr(deck, name, 1)
