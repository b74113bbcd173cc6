"""The examples run as they are, each in a folder of its own."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from tests.quick_fits import MOST_ITERATIONS, quick_fits

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PNG = b"\x89PNG\r\n\x1a\n"


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


def run_alone(script, folder):
    """Run a script in a process of its own; what it printed and, apart, what else was said."""
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONWARNINGS": "default"},
        capture_output=True,
        encoding="utf-8",  # not the locale's: libraries under test change it
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def run_here(monkeypatch, capfd):
    """Run a script in this process: a start of Python takes longer than most of them."""

    def run(script, folder):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(script), str(folder)])
        plt.switch_backend("agg")
        with warnings.catch_warnings(record=True) as told, plt.rc_context():
            warnings.simplefilter("default")
            runpy.run_path(str(script), run_name="__main__")
        plt.close("all")
        out, err = capfd.readouterr()
        return out, err + "".join(f"Warning: {warning}\n" for warning in told)

    return run


@pytest.mark.parametrize("script", [pytest.param(p, id=p.stem) for p in EXAMPLES])
def test_example_runs(script, run_here, fits_so_far, tmp_path):
    starts_processes = "__main__" in script.read_text("utf-8")  # they import the script
    with quick_fits(fits_so_far, MOST_ITERATIONS):
        out, err = (run_alone if starts_processes else run_here)(script, tmp_path)
    assert not re.search("Traceback|Warning", out + err), out + err
    assert re.search(r"\d", out), "it prints no number"
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
