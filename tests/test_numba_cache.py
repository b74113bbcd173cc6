"""Compiled kernels have a folder where the package and the home folder cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import napari_medgs
from napari_medgs._util.numba_cache import choose_cache_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders of users as on Unix")


@pytest.fixture
def settings_come_back():
    """Let numba read its settings again once the environment is what it was."""
    yield
    if "numba" in sys.modules:
        from numba.core.config import reload_config

        reload_config()


@pytest.fixture
def locked(tmp_path, settings_come_back, monkeypatch):
    """A package and a home that cannot be written: files in the way hold for root, too."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__pycache__").touch()
    (tmp_path / "home").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    return tmp_path


def test_a_private_folder_is_made_once(locked):
    folder = choose_cache_folder(locked / "package")
    assert folder.parent == locked / "tmp"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)
    assert choose_cache_folder(locked / "package") is None  # it is set now
    os.environ["NUMBA_CACHE_DIR"] = ""
    assert choose_cache_folder(locked / "package") == folder


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_can_write_is_not_trusted(locked, kind):
    place = locked / "tmp" / f"napari-medgs-{os.getuid()}"
    if kind == "open":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "link":
        (locked / "theirs").mkdir(mode=0o700)
        place.symlink_to(locked / "theirs")
    else:
        place.touch()
    folder = choose_cache_folder(locked / "package")
    assert folder != place
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("writable", ["package", "home"])
def test_nothing_is_changed_where_numba_has_a_folder(locked, writable):
    if writable == "package":
        (locked / "package" / "__pycache__").unlink()
    else:
        (locked / "home").unlink()
    assert choose_cache_folder(locked / "package") is None
    assert os.environ["NUMBA_CACHE_DIR"] == ""
    assert not list((locked / "tmp").iterdir())


def test_kernels_of_other_tests_are_cached_beside_their_modules():
    import numba

    assert os.environ.get("NUMBA_CACHE_DIR", "") == numba.config.CACHE_DIR


def test_numba_that_is_loaded_takes_it(locked):
    code = (
        "import numba.core.config as config; from pathlib import Path;"
        "from napari_medgs._util.numba_cache import choose_cache_folder;"
        f"folder = choose_cache_folder(Path({str(locked / 'package')!r}));"
        "assert config.CACHE_DIR == str(folder), config.CACHE_DIR"
    )
    root = Path(napari_medgs.__file__).parents[1]
    environment = {**os.environ, "TMPDIR": str(locked / "tmp"), "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
