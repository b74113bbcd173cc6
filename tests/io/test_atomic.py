"""Files are complete or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_medgs.errors import Cancelled, FileError
from napari_medgs.io._atomic import atomic_path, full_suffix


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.b.c.medgs.safetensors", ".medgs.safetensors"),
        ("a.safetensors", ".safetensors"),
        ("scan.v2.png", ".png"),
        ("scan v1.5", ".5"),
        ("folder", ""),
        ("a.NII.GZ", ".NII.GZ"),
    ],
)
def test_full_suffix(name, suffix):
    assert full_suffix(Path("x.y") / name) == suffix


def test_the_target_appears_at_the_end(tmp_path):
    target = tmp_path / ("long" * 50 + ".medgs.safetensors")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert full_suffix(temporary) == ".medgs.safetensors"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, Cancelled, KeyboardInterrupt])
def test_an_older_target_survives_failures(tmp_path, error):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error("stop")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folders(tmp_path):
    with atomic_path(tmp_path / "frames") as temporary:
        temporary.mkdir()
        (temporary / "0.png").write_text("x")
    assert [p.name for p in (tmp_path / "frames").iterdir()] == ["0.png"]
    with pytest.raises(ValueError), atomic_path(tmp_path / "other") as temporary:
        temporary.mkdir()
        (temporary / "0.png").write_text("x")
        raise ValueError
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_refused(tmp_path):
    with pytest.raises(FileError, match="does not exist; make it first"):
        atomic_path(tmp_path / "no" / "a.txt").__enter__()
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(FileError, match="in the way"):
        atomic_path(tmp_path / "a.txt").__enter__()
    with pytest.raises(FileError, match="nothing was written"), atomic_path(tmp_path / "b.txt"):
        pass
    with (
        pytest.raises(FileError, match="cannot be written"),
        atomic_path(tmp_path / "c.txt") as temporary,
    ):
        (temporary / "x").write_text("no folder here")


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="the superuser may write everywhere",
)
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="not writable"):
            atomic_path(tmp_path / "a.txt").__enter__()
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileError, match="not writable"):
        atomic_path(tmp_path / "a.txt").__enter__()


def test_importing_the_readers_is_light():
    heavy = "torch numba nibabel SimpleITK scipy skimage tifffile PIL imageio pooch psutil napari"
    code = (
        "import sys, napari_medgs.io, napari_medgs.data.volume;"
        f"print(*(m for m in {heavy.split()} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []
