"""The sources of settings, in order of precedence: options, environment, file, defaults.

Records the source of each value, also for error messages. The file is TOML with the names of the
fields as keys. Must not depend on the command line: options are a mapping.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tollwire.service.settings.config import OPTIONS, Settings
from tollwire.service.settings.parsing import ConfigError

DEFAULT_ORIGIN = "default"


class _FromOutside(Settings, BaseSettings):
    """The fields, with the configuration of their sources."""

    # An empty variable counts as unset: shells and unit files often leave empty variables.
    model_config = SettingsConfigDict(
        env_prefix="TOLLWIRE_", env_ignore_empty=True, enable_decoding=False
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings; ``origins`` has the source of each field's value."""

    settings: Settings
    origins: Mapping[str, str]


def load(options: Mapping[str, Any], file: Path | None) -> Loaded:
    """``options``: the given options, by field. ConfigError if a value is invalid."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(OPTIONS, DEFAULT_ORIGIN)
    if file is not None:
        in_file = _read(file)
        values |= in_file
        origins |= {field: str(file) for field in in_file}
    in_environment = EnvSettingsSource(_FromOutside)()
    values |= in_environment
    origins |= {field: OPTIONS[field].variable for field in in_environment}
    values |= options
    origins |= {field: OPTIONS[field].flag for field in options}
    try:
        return Loaded(Settings(**values), origins)
    except ConfigError as error:
        origin = origins.get(error.field, "")
        if origin in ("", DEFAULT_ORIGIN) or origin.startswith("--"):
            raise
        raise ConfigError(f"{error} (from {origin})", error.field) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb"):
            found = TomlConfigSettingsSource(_FromOutside, file).toml_data
    except OSError as error:
        raise ConfigError(f"--config: cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {file} is not valid TOML: {error}") from None
    for key in found:
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--config: {file} sets {key!r}, which is not a setting{hint}")
    return dict(found)
