"""What is shipped: the wheel's files and metadata."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QT_BINDINGS = ("pyside", "pyqt", "napari[all]", "napari[pyside", "napari[pyqt", "napari[qt")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not a source tree"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source tree."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_one_manifest():
    link = ROOT / "napari.yaml"
    if os.name != "nt":  # git may check links out as files there
        assert link.is_symlink()
    assert link.resolve() == ROOT / "src" / "napari_medgs" / "napari.yaml"


def test_manifest_is_a_real_file(wheel):
    entry = wheel.getinfo("napari_medgs/napari.yaml")
    assert (entry.external_attr >> 16) & 0o170000 in (0, 0o100000)
    assert wheel.read(entry) == (ROOT / "src" / "napari_medgs" / "napari.yaml").read_bytes()


def test_everything_is_in_it_and_nothing_else(wheel):
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source).as_posix())
        for path in (source / "napari_medgs").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == wanted
    assert "napari_medgs/py.typed" in found
    assert any(name.endswith(".cu") for name in found), "the CUDA sources are compiled where used"


def test_entry_points(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    assert "[napari.manifest]\nnapari-medgs = napari_medgs:napari.yaml" in text
    assert "[console_scripts]\nnapari-medgs = napari_medgs.__main__:main" in text


def test_metadata(metadata):
    from napari_medgs import __version__

    assert metadata["Name"] == "napari-medgs"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in metadata.get_all("Classifier")
    assert "# napari-medgs" in metadata.get_payload()


def test_no_qt_binding_is_forced_on_anyone(metadata):
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert any(r.startswith("napari>") for r in required)
    for requirement in required:
        assert not any(name in requirement.lower().replace(" ", "") for name in QT_BINDINGS)


def test_licence_is_shipped(wheel):
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_citation_and_changelog_name_this_version():
    from napari_medgs import __version__

    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
