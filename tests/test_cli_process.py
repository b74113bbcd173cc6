"""The command as a process of its own: start-up, signals, exit status, streams."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_medgs.data.phantom import make_phantom
from napari_medgs.io import write_image
from napari_medgs.io.fields import load_field

HEAVY = ("torch", "numba", "napari", "qtpy", "nibabel", "scipy", "matplotlib", "skimage",
         "SimpleITK", "trimesh", "safetensors", "psutil")  # fmt: skip


def start(*words: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "napari_medgs", *map(str, words)]
    # Not the locale's encoding: libraries under test change the locale of this process.
    options.setdefault("encoding", "utf-8")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Read the process's stdout until a line begins with a text."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"{text!r} did not come: {process.stderr.read()}")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    head = make_phantom(4.0)
    path = tmp_path_factory.mktemp("process") / "brain.nii.gz"
    write_image(path, head.image[None], head.grid)
    return path


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from napari_medgs.cli import app\n"
        "for words in (['--help'], ['fit', '--help'], ['demo', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_command():
    program = shutil.which("napari-medgs", path=str(Path(sys.executable).parent))
    assert program, "the package is not installed"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("napari-medgs ")


def test_failure_is_one_line(tmp_path):
    process = start("info", tmp_path / "no.nii.gz")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="closes streams as shells on Unix do")
def test_closed_streams(image, tmp_path):
    """As programs without a console start others."""
    command = f'"{sys.executable}" -m napari_medgs convert "{image}" "{tmp_path}/c.nrrd" >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert (tmp_path / "c.nrrd").exists()


def test_wrong_usage():
    process = start("render", "x", "--interp", "1", "-o", "y.nii.gz")
    process.communicate(timeout=120)
    assert process.returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_fit_keeps_what_it_has(image, tmp_path, number):
    out, numbers = tmp_path / "out.medgs.safetensors", tmp_path / "fit.json"
    process = start("fit", image, "-o", out, "--json", numbers, "--iterations", 100_000)
    wait_for(process, "fit 1 of ")
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopping" in err
    assert f"{out} holds the last good result" in err
    assert "Traceback" not in err
    assert len(load_field(out)) > 100
    found = json.loads(numbers.read_text())
    assert found["stopped_by"] == "cancelled"
    assert 0 < found["iterations"] < 100_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.json", "out.medgs.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
def test_interrupted_before_there_is_anything(tmp_path):
    """While the image is still being read: nothing is kept, nothing is left."""
    out = tmp_path / "out.medgs.safetensors"
    code = (
        "import signal, sys, time, napari_medgs.io\n"
        # Whoever runs the tests in the background has SIGINT ignored, and this inherits that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def read(*args, **options):\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(60)\n"
        "napari_medgs.io.read_volumes = read\n"
        f"sys.argv = ['napari-medgs', 'fit', 'x.nii', '-o', {str(out)!r}]\n"
        "from napari_medgs.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(process, "reading")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "napari-medgs: canceled; nothing was written.\n"
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path):
    process = start("info", tmp_path / "no.nii.gz", "--debug")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" in err


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals on Windows")
def test_a_bar_on_a_terminal(image, tmp_path):
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "napari_medgs", "fit", str(image), "-o",
               str(tmp_path / "o.medgs.safetensors"), "--iterations", "100"]  # fmt: skip
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        command, stdout=follower, stderr=follower, stdin=follower, env=environment
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait(timeout=60) == 0
    text = shown.decode("utf-8", "replace")
    assert "\x1b[" in text
    assert "left" in text
    assert "PSNR" in text


def test_interrupted_while_modules_are_imported():
    """No traceback, and the exit status of an interrupted program."""
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from napari_medgs.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "napari-medgs: canceled; nothing was written.\n"
