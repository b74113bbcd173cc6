"""Fixtures for tests of the plugin."""

from __future__ import annotations

import gc
import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_medgs.plugin import garbage
from napari_medgs.plugin.layer_frame import grid_kwargs


def pytest_collection_modifyitems(items):
    """Give every test that opens a viewer the marker "gui"."""
    for item in items:
        if {"make_viewer", "qtbot"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gui)


@pytest.fixture(scope="session")
def modules_loaded():
    """Import what most tests with a viewer need, before anything is kept apart."""
    for name in ("napari._qt.qt_viewer", "numba", "torch", "napari_medgs.plugin.segment.widget"):
        importlib.import_module(name)
    yield
    gc.unfreeze()


@pytest.fixture
def others_apart(modules_loaded):
    """Keep modules and what earlier tests left out of garbage collection.

    napari's viewers and its test viewers run it for every layer that goes: it would look at
    hundreds of thousands of objects each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def manifests_read_once():
    """Parse the plug-ins' manifests once: each of napari's test viewers looks for all of them."""
    read, known = PluginManifest.from_file, {}

    def from_file(path):
        key = (path := Path(path)), path.stat().st_mtime_ns
        if key not in known:
            known[key] = read(path)
        return known[key].model_copy(deep=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "from_file", from_file)
        yield


@pytest.fixture(scope="session")
def preferences_not_written():
    """Leave the user's preferences alone: each viewer writes its file of them several times."""
    from napari.settings import NapariSettings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NapariSettings, "_maybe_save", lambda self: None)
        yield


@pytest.fixture(autouse=True)
def collector(monkeypatch):
    """Leave the collector alone, which napari's test viewers rely on; note what is asked of it."""
    asked: list[str] = []
    monkeypatch.setattr(garbage, "_set_apart", lambda: asked.append("set apart"))
    monkeypatch.setattr(garbage, "_give_back", lambda: asked.append("give back"))
    return asked


@pytest.fixture
def make_viewer(others_apart, manifests_read_once, preferences_not_written, make_napari_viewer):
    """Make viewers, without the noise of npe2's deprecations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="npe2")
        yield make_napari_viewer


@pytest.fixture
def notes(monkeypatch):
    """Collect what the plugin tells the user, as (severity, text)."""
    from napari.utils import notifications

    told: list[tuple[str, str]] = []
    for severity in ("info", "warning", "error"):
        monkeypatch.setattr(
            notifications,
            f"show_{severity}",
            lambda text, severity=severity: told.append((severity, text)),
        )
    return told


@pytest.fixture
def add_tiny(tiny_volume, tiny_labels):
    """Add the tiny volume and its mask to a viewer; return both layers."""

    def add(viewer):
        place = grid_kwargs(tiny_volume.grid)
        metadata = place.pop("metadata")
        image = viewer.add_image(
            tiny_volume.channel(0), name="scan", metadata=dict(metadata), **place
        )
        mask = viewer.add_labels(
            tiny_labels.copy(), name="truth", metadata=dict(metadata), **place
        )
        return image, mask

    return add


@pytest.fixture(autouse=True)
def no_traceback_windows():
    """Fail when an exception escaped into Qt's event loop."""
    seen: list[BaseException] = []
    before = sys.excepthook

    def hook(kind, value, trace):
        seen.append(value)
        before(kind, value, trace)

    sys.excepthook = hook
    yield
    sys.excepthook = before
    assert not seen


@pytest.fixture
def blob():
    """A smooth bright ball on dark ground, (10, 16, 18) float32."""
    z, y, x = np.indices((10, 16, 18))
    r2 = ((z - 5) / 3) ** 2 + ((y - 8) / 4) ** 2 + ((x - 9) / 5) ** 2
    return np.exp(-r2).astype(np.float32)


@pytest.fixture
def session_cache(tmp_path, monkeypatch):
    """Keep sessions in a folder of the test's own."""
    from napari_medgs.plugin.segment import autosave as segment_autosave

    place = tmp_path / "cache" / "sessions"
    monkeypatch.setattr(segment_autosave, "folder", lambda: place)
    return place


@pytest.fixture
def docked(make_viewer, tiny_volume, session_cache):
    """Open viewers with the Segment widget, with the tiny volume or without an image."""
    from napari_medgs.plugin.segment.widget import SegmentWidget

    def open_it(image=True):
        viewer = make_viewer()
        if image:
            place = grid_kwargs(tiny_volume.grid)
            metadata = place.pop("metadata")
            viewer.add_image(tiny_volume.channel(0), name="scan", metadata=metadata, **place)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        return viewer, widget

    return open_it
