"""Kernels that the minimal install compiled serve the source tree."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "minimal_install.py"
KERNEL = "from numba import njit\n\n\n@njit(cache=True)\ndef double(x):\n    return 2 * x\n"

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("NUMBA_CACHE_DIR")) or not TOOL.exists(),
    reason="kernels are cached beside their modules, in a checkout",
)


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return load(TOOL, "minimal_install")


@pytest.fixture
def folders(tmp_path):
    """The same module in two folders, installed later than it was written."""
    folders = tmp_path / "installed", tmp_path / "source"
    for folder, written in zip(folders, (2e9, 1e9)):
        folder.mkdir()
        (folder / "kernels.py").write_text(KERNEL)
        os.utime(folder / "kernels.py", (written, written))
    return folders


def compiled(folder):
    """Call the kernel; whether it had to be compiled."""
    double = load(folder / "kernels.py", "kernels").double
    assert double(3) == 6
    return not double.stats.cache_hits


def test_what_was_compiled_in_one_is_not_compiled_in_the_other(tool, folders):
    installed, source = folders
    modules = tool.same_files(installed, source)
    tool.take_times(modules)
    assert compiled(installed)
    assert tool.share_kernels(modules) == 1
    assert not compiled(source)


def test_kernels_that_are_there_stay(tool, folders):
    installed, source = folders
    modules = tool.same_files(installed, source)
    assert compiled(installed)
    assert compiled(source)
    before = {path: path.read_bytes() for path in (source / "__pycache__").iterdir()}
    assert tool.share_kernels(modules) == 0
    assert {path: path.read_bytes() for path in (source / "__pycache__").iterdir()} == before


def test_modules_that_differ_share_nothing(tool, folders):
    installed, source = folders
    (source / "kernels.py").write_text(KERNEL.replace("2 * x", "x + x"))
    modules = tool.same_files(installed, source)
    tool.take_times(modules)
    assert compiled(installed)
    assert tool.share_kernels(modules) == 0
    assert compiled(source)


def test_kernels_of_an_earlier_installation_go(tool, folders):
    installed, source = folders
    modules = tool.same_files(installed, source)
    tool.take_times(modules)
    assert compiled(installed)
    assert not compiled(installed)
    tool.take_times(modules)
    assert compiled(installed)
