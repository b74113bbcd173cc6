"""The manifest: valid, complete, and light to import."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "numba",
    "torch_geometric",
    "gsplat",
    "nibabel",
    "SimpleITK",
    "trimesh",
    "skimage",
    "scipy",
    "matplotlib",
)


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(ROOT / "src" / "napari_medgs" / "napari.yaml")


def test_npe2_validates_it():
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "napari_medgs"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_link_at_the_top_level_is_the_same_file():
    link = ROOT / "napari.yaml"
    assert link.is_symlink()
    assert link.samefile(ROOT / "src" / "napari_medgs" / "napari.yaml")


def test_every_command_exists_and_has_a_place(manifest):
    contributions = manifest.contributions
    used = {w.command for w in contributions.widgets}
    used |= {r.command for r in contributions.readers}
    used |= {w.command for w in contributions.writers}
    used |= {s.command for s in contributions.sample_data}
    for command in contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert command.id in used
    for items in contributions.menus.values():
        assert all(item.command in used for item in items)
    for menu in ("napari/layers/segment", "napari/layers/visualize", "napari/file/io_utilities"):
        assert contributions.menus[menu]


def test_importing_what_the_manifest_names_stays_light(manifest):
    modules = sorted({c.python_name.partition(":")[0] for c in manifest.contributions.commands})
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
