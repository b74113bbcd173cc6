"""The examples run as they are, each in a process and a folder of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PNG = b"\x89PNG\r\n\x1a\n"


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("script", [pytest.param(p, id=p.stem) for p in EXAMPLES])
def test_example_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONWARNINGS": "default"},
        capture_output=True,
        encoding="utf-8",  # not the locale's: libraries under test change it
        timeout=500,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    assert not re.search("Traceback|Warning", report), report
    assert re.search(r"\d", done.stdout), "it prints no number"
    picture = (tmp_path / f"{script.stem}.png").read_bytes()
    assert picture.startswith(PNG)
    assert 5_000 < len(picture) < 300_000, f"{script.stem}.png has {len(picture)} bytes"


@pytest.mark.parametrize("script", [pytest.param(p, id=p.stem) for p in EXAMPLES])
def test_example_explains_itself(script):
    source = script.read_text("utf-8")
    title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    assert re.fullmatch(r"[A-Z].*[^.]", title), "one line, no period"
    assert 2 <= len(re.findall(r"[.!?](?=\s|$)", text)) <= 4, "two to four sentences"
    assert len(re.findall(r"^ *# %%$", source, re.MULTILINE)) >= 3, (
        "cells, so that it opens as a notebook"
    )
    assert len(source.splitlines()) <= 90


def test_gallery_shows_every_example():
    """``make pictures`` rewrites the page and the pictures."""
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    for script in EXAMPLES:
        title, _, text = (ast.get_docstring(ast.parse(script.read_text("utf-8"))) or "").partition(
            "\n\n"
        )
        assert f"### {title}\n" in page, script.name
        assert text in page, f"{script.name}: the page has another text than the script"
        assert f'--8<-- "examples/{script.name}"' in page
        picture = ROOT / "docs" / "images" / "gallery" / f"{script.stem}.png"
        assert picture.read_bytes().startswith(PNG)
        assert f"images/gallery/{picture.name}" in page
