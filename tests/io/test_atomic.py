"""Files are complete or absent."""

from __future__ import annotations

import os
import socket
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


@pytest.mark.parametrize("name", ["long" * 50, "影" * 75, "🧠" * 56])  # 255 bytes are allowed
def test_the_target_appears_at_the_end(tmp_path, name):
    target = tmp_path / (name + ".medgs.safetensors")
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
    with pytest.raises(FileError, match="choose another name"):
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


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_dangling_link_makes_its_target(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "later.json")
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "later.json").read_text() == "new"


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    code = (
        "import os, sys, signal; from napari_medgs.io._atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n"
        "    t.mkdir() if sys.argv[2] == 'folder' else t.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for name, kind in (("a.nii.gz", "file"), ("frames", "folder")):
        target = tmp_path / name
        subprocess.run([sys.executable, "-c", code, str(target), kind], check=False)
        assert len([p for p in tmp_path.iterdir() if ".tmp" in p.name]) == 1
        with atomic_path(target) as temporary:
            temporary.write_text("whole")
        assert target.read_text() == "whole"
        assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_files_of_running_writers_and_other_targets_stay(tmp_path):
    other = tmp_path / ".b.json.0123456789ab.tmp.json"
    other.write_text("another target")
    os.utime(other, (0, 0))
    own = tmp_path / ".a.json.notes.tmp.json"
    own.write_text("no token")
    with atomic_path(tmp_path / "a.json") as first, atomic_path(tmp_path / "a.json") as second:
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a.json").read_text() == "1"
    assert other.exists()
    assert own.exists()


def test_old_leftovers_of_unknown_machines_are_swept(tmp_path):
    names = [".a.json.0123456789ab.tmp.json", ".a.json.ffffff-1-0123456789ab.tmp.json"]
    for name in names:
        (tmp_path / name).write_text("half")
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("1")
    assert all((tmp_path / name).exists() for name in names)
    for name in names:
        os.utime(tmp_path / name, (0, 0))
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("2")
    assert not any((tmp_path / name).exists() for name in names)


def test_a_link_that_leads_to_itself(tmp_path):
    link = tmp_path / "loop.json"
    link.symlink_to("loop.json")
    with pytest.raises(FileError, match="leads to itself"), atomic_path(link):
        pass
    assert link.is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", ["pipe.json", "link.json"])
def test_pipes_are_written_to_and_stay(tmp_path, name):
    """As /dev/null does: a rename in its place would replace the device."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    (tmp_path / "link.json").symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic_path(tmp_path / name) as temporary:
            assert full_suffix(temporary) == ".json"
            temporary.write_text("numbers")
        assert os.read(reader, 100) == b"numbers"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(ValueError, match="stop"), atomic_path(pipe) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no descriptors as files")
def test_open_streams_are_appended_to(tmp_path):
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        with atomic_path(f"/proc/self/fd/{log.fileno()}") as temporary:
            temporary.write_text("numbers\n")
    assert (tmp_path / "log").read_text() == "before\nnumbers\n"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no such device")
def test_a_stream_that_takes_nothing():
    with (
        pytest.raises(FileError, match="cannot be written"),
        atomic_path("/dev/full") as temporary,
    ):
        temporary.write_text("numbers")
    assert Path("/dev/full").is_char_device()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets")
def test_sockets_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s.json")
        with pytest.raises(FileError, match="is a device"), atomic_path("s.json"):
            pass
        assert Path("s.json").is_socket()
