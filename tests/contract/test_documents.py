"""What documents tell to type is what the command line takes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from driftloop.cli.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for place in ("*.md", "docs/**/*.md", "services/*/README.md", "usecases/*/README.md", "deploy/*/README.md")
    for path in ROOT.glob(place)
]
# In a line of its own, or quoted within a sentence; up to a comment, or to what the shell does with it.
TYPED = re.compile(r"(?m)(?:^ {4}(?:\S*/bin/)?|`(?:\S*/bin/)?|-rm demo )driftloop ((?:[^`\n#]|`\n)*)")


def typed(path: Path) -> list[list[str]]:
    """The words behind `driftloop` of each command in a document, without brackets and alternatives."""
    return [re.sub(r"[\[\]…]", " ", found).split() for found in TYPED.findall(path.read_text())]


def wrong(words: list[str]) -> str:
    """What of a command is none; empty if all of it is known."""
    command: click.Command = main
    for word in words:
        if word.startswith("--"):
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help"}:
                return f"{command.name} has no {word}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"{command.name} has no command {word}"
            command = found
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_is_one_that_there_is(path: Path) -> None:
    assert [found for words in typed(path) if (found := wrong(words))] == []


def test_the_documents_tell_of_commands() -> None:
    assert sum(len(typed(path)) for path in DOCUMENTS) > 40
