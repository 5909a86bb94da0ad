"""Writes a manual page for each subcommand, from its help.

``make man`` runs it: ``python -m tollwire.service.cli.manual FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from tollwire.service.cli.main import main


def pages() -> Iterator[tuple[str, str]]:
    """The pages: name, such as "tollwire-rates-list", and text in roff."""
    with click.Context(main, info_name="tollwire") as ctx:
        yield from _pages(ctx)


def _pages(ctx: click.Context) -> Iterator[tuple[str, str]]:
    name = ctx.command_path.replace(" ", "-")
    yield name, _page(name, ctx)
    if isinstance(ctx.command, click.Group):
        for child_name in ctx.command.list_commands(ctx):
            child = ctx.command.get_command(ctx, child_name)
            if child is not None and not child.hidden:
                with click.Context(child, info_name=child_name, parent=ctx) as below:
                    yield from _pages(below)


def _page(name: str, ctx: click.Context) -> str:
    command = ctx.command
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        f'.TH "{name.upper()}" "1" "" "tollwire {version("tollwire")}" "Tollwire"',
        ".SH NAME",
        _escaped(f"{name} - {command.get_short_help_str(200)}"),
        ".SH SYNOPSIS",
        f".B {_escaped(ctx.command_path)}",
        _escaped(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        ".SH OPTIONS",
    ]
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            lines += [".TP", f".B {_escaped(record[0])}", _escaped(record[1])]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for child_name in command.list_commands(ctx):
            child = command.get_command(ctx, child_name)
            if child is not None and not child.hidden:
                lines += [".TP", f".B {name}\\-{child_name}(1)"]
                lines.append(_escaped(child.get_short_help_str(200)))
    if command.epilog:
        lines += [".SH NOTES", *_paragraphs(command.epilog)]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Text escaped for roff, on a line of its own."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


def write(folder: Path) -> int:
    """Write all pages into a folder. Returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, text in pages():
        (folder / f"{name}.1").write_text(text, "utf-8")
        count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(f"{write(target)} manual pages written to {target}")
