"""``import napari_medgs as mg``: every name is there, and nothing is loaded before it is used."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import napari_medgs as mg

SOURCE = Path(mg.__file__).parent
FACES = sorted(m.name for m in pkgutil.iter_modules(mg.__path__) if m.ispkg)
HEAVY = ("numpy", "scipy", "torch", "numba", "sklearn", "skimage", "nibabel", "matplotlib")
VIEWER = ("napari", "qtpy", "PySide6", "magicgui", "vispy")


def stub_names() -> dict[str, str]:
    """Return where the stub file says that every name comes from."""
    tree = ast.parse((SOURCE / "__init__.pyi").read_text("utf-8"))
    return {
        alias.asname or alias.name: "napari_medgs." + (node.module or "")
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


NAMES = stub_names()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_main_names_are_offered():
    wanted = {
        *("read_volume", "read_labels", "write_image", "write_labels", "Volume", "Grid"),
        *("fit", "FitParams", "render", "render_labels", "save_field", "load_field"),
        *("segment", "Prompts", "SegmentParams", "InteractiveSegmenter"),
        *("mesh", "MeshParams", "evaluate", "make_phantom", "MedGSError"),
    }
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_name_resolves_to_what_the_stub_says(name):
    assert getattr(mg, name) is getattr(importlib.import_module(NAMES[name]), name)


def test_names_are_listed():
    assert set(NAMES) <= set(dir(mg))
    assert set(NAMES) <= set(mg.__all__)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="segmnt"):
        mg.segmnt  # noqa: B018


def test_no_name_equals_a_module():
    modules = {m.name for m in pkgutil.iter_modules(mg.__path__)}
    assert not modules & set(NAMES)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("fitting", "fit"),
        ("rendering", "render"),
        ("segmentation", "segment"),
        ("meshing", "mesh"),
        ("metrics", "evaluate"),
    ],
)
@pytest.mark.parametrize("order", ["package first", "name first"])
def test_both_import_orders_work(module, name, order):
    steps = [f"import napari_medgs.{module}", f"import napari_medgs as mg; mg.{name}"]
    if order == "name first":
        steps.reverse()
    report = f"""
import inspect, napari_medgs as mg
print(callable(mg.{name}), inspect.ismodule(mg.{name}), inspect.ismodule(mg.{module}))
"""
    assert run("\n".join([*steps, report])) == "True False True"


def test_import_loads_nothing_heavy():
    code = """
import json, sys
import napari_medgs
dir(napari_medgs)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = {name.split(".")[0] for name in json.loads(run(code))}
    assert not loaded & {*HEAVY, *VIEWER}


def test_core_loads_no_viewer():
    code = f"""
import importlib, json, sys
import napari_medgs as mg
for name in {sorted(NAMES)!r}:
    getattr(mg, name)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = {name.split(".")[0] for name in json.loads(run(code))}
    assert not loaded & {*VIEWER, "torch"}


@pytest.mark.parametrize("package", FACES)
def test_package_offers_what_it_lists(package):
    module = importlib.import_module(f"napari_medgs.{package}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", sorted(NAMES))
def test_package_and_front_door_agree(name):
    """Where a package lists a name of the front door, both are the same object."""
    package = importlib.import_module(".".join(NAMES[name].split(".")[:2]))
    if name in getattr(package, "__all__", ()):
        assert getattr(package, name) is getattr(mg, name)


def test_public_things_say_where_they_are():
    """Pickles and documentation need the module and the name that really hold an object."""
    for name in NAMES:
        thing = getattr(mg, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert getattr(importlib.import_module(thing.__module__), thing.__name__) is thing
