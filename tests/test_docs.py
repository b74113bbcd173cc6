"""What the documentation shows works when pasted: Python, commands, links, the site."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_medgs.data.phantom import make_phantom
from napari_medgs.io import write_image, write_labels

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text("utf-8")) if name == language]


def pages_with(language: str) -> list:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if blocks(page, language)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with ``brain.nii.gz`` and ``labels.nii.gz``, as the examples assume."""
    head = make_phantom(6.0)
    write_image(tmp_path / "brain.nii.gz", head.image[None], head.grid)
    write_labels(tmp_path / "labels.nii.gz", head.labels, head.grid, head.names)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page, folder):
    names: dict[str, object] = {"np": np}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, example {number}", "exec"), names)


@pytest.mark.parametrize("page", pages_with("console"))
def test_commands_run(page, folder, capsys):
    """Through the entry point of the script, in this process: start-up is tested elsewhere."""
    from typer.testing import CliRunner

    from napari_medgs.cli.app import app

    runner = CliRunner()
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if not line.startswith("$ "):
                continue
            program, *arguments = shlex.split(line[2:])
            assert program == "napari-medgs", line
            result = runner.invoke(app, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links_and_pictures_exist(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs")
    with contextlib.suppress(KeyError):
        os.environ.pop("DISABLE_MKDOCS_2_WARNING")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
