"""Every command has an example, and help and documents show only commands and options that there are."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecap.cli.main import build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("hw/*.md"),
    *ROOT.glob("hw/rigs/*.toml"),
    *ROOT.glob("edgecap/**/*.md"),
    *ROOT.glob("systemd/*.toml"),
]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command and all its actions."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from parsers(part)


def lines_of(text: str) -> Iterator[str]:
    """Commands that are printed on a line of their own, to be typed as they are."""
    for line in re.sub(r"\\\n *", "", text).splitlines():
        found = re.match(r"(?:#|\$|[A-Z_]+=\S+|sudo|\s)*(?:\S*/bin/)?(edgecap [a-z].*)", line)
        if found and "`" not in found[1]:
            yield re.split(r" {2,}| #|\s*[|>]|;", found[1])[0]


def mentions_of(text: str) -> Iterator[str]:
    """Commands that are named as code within a sentence, often in part."""
    for code in re.findall(r"`(?:sudo )?(?:\.venv/bin/)?(edgecap [a-z][^`]*)`", text):
        yield " ".join(code.split())


def refused(command: str) -> bool:
    """Whether the parser refuses it; what has placeholders of more than one word is not judged."""
    words = command.split()[1:]
    if words[0] not in COMMANDS or re.search(r"[…\[\]$]|HOST:PORT|\.\.\.", command):
        return False
    try:
        build_parser().parse_args(shlex.split(command)[1:])
    except SystemExit as end:
        return end.code != 0
    return False


def unknown_options(command: str) -> list[str]:
    """Options in it that the command, or any action of it, does not have."""
    found = next((p for p in parsers(build_parser()) if p.prog == " ".join(command.split()[:2])), None)
    if found is None:
        return [command]
    text = " ".join(p.format_help() for p in parsers(found))
    return [o for o in re.findall(r"(?<!\S)--[a-z][a-z-]*", command) if o not in text]


COMMANDS = next(set(a.choices) for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))


@pytest.mark.parametrize("parser", list(parsers(build_parser())), ids=lambda p: p.prog)
def test_each_command_has_an_example_that_it_takes(parser: argparse.ArgumentParser) -> None:
    assert "example" in (parser.epilog or ""), f"{parser.prog} has no example"
    commands = list(lines_of(parser.epilog or ""))
    assert commands
    assert [c for c in commands if refused(c)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_documents_show_commands_that_exist(document: Path) -> None:
    text = document.read_text()
    assert [c for c in lines_of(text) if refused(c)] == []
    assert [o for c in mentions_of(text) for o in unknown_options(c)] == []
