"""What the documentation shows works when pasted: Python, commands, links, the site."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli import app
from napari_medgs.demo.sample import write_sample
from tests.quick_fits import MOST_ITERATIONS, quick_fits

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST_PAGE = ROOT / "README.md"
GOOD_FITS = {"compress.md"}  # a field of few steps does not fit into the bytes of its example
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text("utf-8")) if name == language]


def pages_with(language: str, among: Iterable[Path] = PAGES) -> list:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in sorted(among)
        if blocks(page, language)
    ]


needs_bash = pytest.mark.skipif(
    shutil.which("bash") is None, reason="the commands are written for bash"
)


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The files of ``napari-medgs sample``, which the Python examples read."""
    folder = tmp_path_factory.mktemp("documents")
    write_sample(folder)
    return folder


@pytest.fixture
def few_steps(page, fits_so_far):
    """Fit in few steps. Nearly every page begins with the same fit."""
    with quick_fits(fits_so_far, None if page.name in GOOD_FITS else MOST_ITERATIONS):
        yield


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page, sample, tmp_path, monkeypatch):
    for file in sample.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, example {number}", "exec"), names)


def commands(page: Path) -> str:
    """Return all blocks marked ``bash`` of a page.

    Commands that need a network or a user's own files are in blocks marked ``sh``.
    """
    script = "\n".join(blocks(page, "bash"))
    assert "napari-medgs sample" in script
    return script


@pytest.mark.slow
@needs_bash
def test_commands_can_be_pasted_in_order(tmp_path):
    """The page that newcomers read first, in one shell, in a new folder, as they would."""
    programs = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", commands(FIRST_PAGE)],
        cwd=tmp_path,
        env={**os.environ, "PATH": programs + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        encoding="utf-8",  # not the locale's: libraries under test change it
        timeout=540,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def shortened(words: list[str]) -> list[str]:
    """Give a command few steps where its fits are not those that `few_steps` exchanges."""
    if words[:1] == ["fit-many"] and not {"--iterations", "--quality"} & set(words):
        return [*words, "--iterations", str(MOST_ITERATIONS)]
    if words[:1] == ["compress"] and "--iterations" in words:
        place = words.index("--iterations") + 1
        return [*words[:place], str(min(int(words[place]), 5)), *words[place + 1 :]]
    return words


@pytest.mark.slow
@needs_bash
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("page", pages_with("bash", set(PAGES) - {FIRST_PAGE}))
def test_commands_work_in_order(page, tmp_path, monkeypatch):
    """All other pages, in this process: a start of Python takes longer than many commands."""
    monkeypatch.chdir(tmp_path)
    for line in commands(page).replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "napari-medgs":
            done = CliRunner().invoke(app, shortened(words))
            assert done.exit_code == 0, f"{line}\n{done.output}{done.stderr}"
        elif program == "cd":
            monkeypatch.chdir(*words)
        elif program:
            subprocess.run(["bash", "-euc", line], check=True, timeout=60)


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are linked by, those of included files among them."""
    text = page.read_text("utf-8")
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "]", heading)).strip().lower()
        found.add(re.sub(r"\s+", "-", words))
    for name in re.findall(r'^--8<-- "([^":]+)', text, re.MULTILINE):
        found |= anchors(ROOT / name)
    return found


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links_and_pictures_exist(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs")
    with contextlib.suppress(KeyError):
        os.environ.pop("DISABLE_MKDOCS_2_WARNING")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",  # not the locale's: libraries under test change it
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_the_reference_names_what_there_is():
    """Every name on the page exists, and the page has all names of the front door."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    entry = re.compile(r"^::: ([\w.]+)((?:\n +.+)*)", re.MULTILINE)
    shown = set()
    for target, options in entry.findall(text):
        members = re.search(r"members: \[(.+)\]", options)
        thing = pkgutil.resolve_name(target)
        shown.add(target.rsplit(".", 1)[1])
        for name in members.group(1).split(", ") if members else ():
            assert hasattr(thing, name), f"{target}.{name}"
            shown.add(name)
    assert {n for n in mg.__all__ if not n.startswith("_")} - shown <= {"MedGSError", "MeshParams"}
