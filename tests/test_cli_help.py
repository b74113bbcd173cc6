"""Help pages, their examples, and the options that the documents name."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.cli.app import COMMANDS, load_command

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FENCE = re.compile(r"^```(?:bash|sh|console|text)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def options_of(name: str) -> set[str]:
    return {o for p in load_command(name).params for o in (*p.opts, *p.secondary_opts)} | {
        "-h", "--help"
    }  # fmt: skip


def examples_of(name: str) -> tuple[str, ...]:
    return import_module(f"napari_medgs.cli.{name.replace('-', '_')}").EXAMPLES


def unknown_options(command: str) -> list[str]:
    """Return the options of a command line that its command does not have."""
    words = shlex.split(command, comments=True)
    name, rest = words[1], words[2:]
    if name.startswith("-"):
        return []
    if name not in COMMANDS:
        return [name]
    known = options_of(name)
    given = [word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)]
    return [word for word in given if word not in known]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_help_with_examples(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    text = CliRunner().invoke(app, [name, "--help"]).output
    for example in examples_of(name):
        assert example.startswith(f"napari-medgs {name}")
        assert unknown_options(example) == []
        assert text.index(example) > text.index("Examples") > text.index("--debug")


@pytest.mark.parametrize("name", COMMANDS)
def test_options_that_all_commands_share_come_last(name):
    text = CliRunner().invoke(app, [name, "--help"]).output
    panels = re.findall(r"╭─ ([A-Z][\w' ]+?) ─", text)
    assert panels[-1] == "Common options"
    assert len(set(panels)) == len(panels)
    assert "range>" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_options_with_a_value_say_what_it_is(name):
    for param in load_command(name).params:
        if param.param_type_name == "option" and not getattr(param, "is_flag", False):
            assert param.help, param.name
            assert param.help[0].isupper(), param.name
            assert param.help.endswith("."), param.name


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_the_documents_name_options_that_there_are(page):
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = [line.strip() for block in FENCE.findall(text) for line in block.splitlines()]
    inline = [
        c for c in re.findall(r"`(napari-medgs [a-z][^`]*)`", text) if c.split()[1] in COMMANDS
    ]
    commands = [line for line in lines if line.startswith("napari-medgs ")] + inline
    wrong = {command: bad for command in commands if (bad := unknown_options(command))}
    assert wrong == {}


def documented_options(name: str) -> set[str]:
    """Return the options that the page of the command line, or a page it links to, names."""
    page = ROOT / "docs" / "howto" / "command-line.md"
    common, *sections = re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)
    of_command = {n: s for s in sections for n in s.split("\n")[0].split(", ")}
    text = of_command.get(name, "")
    for link in sorted(set(re.findall(r"\]\(([\w-]+\.md)", text))):
        text += (page.parent / link).read_text("utf-8")
    if name == "fit-many":
        text += of_command["fit"]
    return {"--output", *OPTION.findall(common + text)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documents_name_all_options(name):
    named = documented_options(name)
    options = [p for p in load_command(name).params if p.param_type_name == "option"]
    missing = [
        p.opts for p in options if not p.hidden and not named & {*p.opts, *p.secondary_opts}
    ]
    assert missing == []
