"""docs/configuration.md has each setting, as the fields of tollwire.service.settings.config have
it.

As a program, ``make config-docs``, this writes that part of the document anew.
"""

from __future__ import annotations

import re
import tomllib

from tests.integration.serving import REPOSITORY
from tollwire.service.settings.config import OPTIONS, Option, Settings

PATH = REPOSITORY / "docs" / "configuration.md"
DOCUMENT = PATH.read_text("utf-8")
HEADING = "## Settings\n\n"


def section(option: Option) -> str:
    """The text of the document about a setting."""
    default = f"`{option.default}`" if option.default else "none"
    return (
        f"### {option.field}\n\n"
        f"`{option.flag}`, `{option.variable}`: {option.kind}. Default: {default}.\n\n"
        f"{option.description}\n"
    )


def rewritten() -> str:
    """The expected text of the document."""
    introduction = DOCUMENT.partition(HEADING)[0]
    return introduction + HEADING + "\n".join(map(section, OPTIONS.values()))


def test_the_document_equals_the_fields() -> None:
    assert rewritten() == DOCUMENT, "make config-docs updates it"


def test_the_example_is_a_valid_file() -> None:
    found = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    Settings(**tomllib.loads(found[1]))


if __name__ == "__main__":
    PATH.write_text(rewritten(), "utf-8")
