"""``make test`` runs all tests, though in parts."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_make_gui_looks_where_tests_open_windows():
    found = re.search(r"^GUI_TESTS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    places = [ROOT / place for place in found[1].split()]
    assert all(place.exists() for place in places)
    for file in (ROOT / "tests").rglob("test_*.py"):
        if re.search(r"make_(napari_)?viewer|\bqtbot\b|mark\.gui\b", file.read_text("utf-8")):
            assert file == Path(__file__) or any(file.is_relative_to(p) for p in places), file
