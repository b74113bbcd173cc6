"""How long the window does not answer: the main thread's work between two turns of the event loop.

    xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python benchmarks/viewer_gaps.py \
        [--shape Z Y X] [--last ACTION] [--profile ACTION]

Opens a file, segments it and looks at the mask in a real viewer, with mouse strokes on the canvas.
A timer of 5 ms notes the CPU time of the main thread between its calls: what a free core would
need before the window answers again. Printed is the longest such gap of every action, with the
number of those above 0.1 s. ``--profile`` prints what an action's longest functions are.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

TICK_MS, SHORT, LONG = 5, 0.1, 0.3
WIDGETS = ("Fit Gaussians", "Gaussians overlay", "Discover", "Learn", "Classify", "Export", "Load")


class Enough(Exception):
    """The last action that was asked for is done."""


class Clock:
    """Notes the main thread's CPU time between the turns of the event loop, by action."""

    def __init__(self, profiled: str, last: str) -> None:
        from qtpy.QtCore import QTimer

        self._last = last
        self.gaps: dict[str, list[float]] = {}
        self._profiled, self._name = profiled, ""
        self._cpu = time.thread_time()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)

    def _tick(self) -> None:
        now = time.thread_time()
        if self._name:
            self.gaps.setdefault(self._name, []).append(now - self._cpu)
        self._cpu = now

    def run(
        self,
        name: str,
        act: Callable[[], Any],
        done: Callable[[], bool] = lambda: True,
        rest: float = 0.4,
    ) -> None:
        """Act within the event loop, and wait until it is done and has come to rest."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, limit = QEventLoop(), time.monotonic() + 600
        state = {"acted": False, "since": 0.0}

        def start() -> None:
            self._name = name
            act()
            state["acted"] = True

        def look() -> None:
            if time.monotonic() > limit:
                loop.quit()
                raise TimeoutError(f"{name} did not end")
            if not state["acted"] or not done():
                state["since"] = 0.0
            elif not state["since"]:
                state["since"] = time.monotonic()
            elif time.monotonic() - state["since"] > rest:
                loop.quit()

        timer = QTimer()
        timer.timeout.connect(look)
        timer.start(20)
        profile = cProfile.Profile(time.thread_time) if name == self._profiled else None
        QTimer.singleShot(0, start)
        if profile is not None:
            profile.enable()
        loop.exec()
        if profile is not None:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumtime").print_stats(70)
        timer.stop()
        self._tick()
        self._name = ""
        print(f"{name}: {max(self.gaps[name]):.2f} s", file=sys.stderr, flush=True)
        if name == self._last:
            raise Enough

    def table(self) -> str:
        """Return the longest gaps."""
        lines = ["| action | longest s | above 0.1 s | above 0.3 s |", "|---|--:|--:|--:|"]
        for name, gaps in self.gaps.items():
            counts = [sum(gap > bar for gap in gaps) for bar in (SHORT, LONG)]
            lines.append(f"| {name} | {max(gaps):.2f} | {counts[0]} | {counts[1]} |")
        return "\n".join(lines)


def write_scan(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Write four noisy ellipsoids as a NIfTI file of 16 bits."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.io import write_image

    rng = np.random.default_rng(0)
    axes = [np.linspace(0, 1, n, dtype=np.float32) for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    image = np.full(shape, -800, np.int16)
    image[((y - 0.5) ** 2 + (x - 0.5) ** 2 + 0 * z) < 0.2] = 0
    for k, center in enumerate(((0.5, 0.4, 0.35), (0.5, 0.4, 0.65), (0.5, 0.65, 0.5))):
        inside = sum(((p - c) / 0.12) ** 2 for p, c in zip((z, y, x), center, strict=True))
        image[np.asarray(inside) < 1] = 80 + 60 * k
    for plane in image:
        plane += rng.normal(0, 20, plane.shape).astype(np.int16)
    path = folder / "scan.nii.gz"
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    write_image(path, image, Grid(shape, affine))
    return path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(150, 256, 256))
    parser.add_argument("--profile", default="", help="action whose functions are listed")
    parser.add_argument("--last", default="", help="action after which it ends")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds before New is pressed")
    given = parser.parse_args()

    import napari
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QFileDialog

    from napari_medgs.plugin.segment import autosave as segment_autosave

    folder = tempfile.TemporaryDirectory()
    segment_autosave.folder = lambda: Path(folder.name) / "sessions"  # type: ignore[assignment]
    QFileDialog.getSaveFileName = lambda *args, **kwargs: (args[2], "")  # type: ignore
    path = write_scan(Path(folder.name), tuple(given.shape))
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1280, 800)
    QTest.qWait(1000)
    clock = Clock(given.profile, given.last)
    with contextlib.suppress(Enough):
        act(viewer, clock, path, given.idle)
    print(f"{' x '.join(map(str, given.shape))} voxels, napari {napari.__version__}")
    print(clock.table(), flush=True)
    viewer.close()
    folder.cleanup()


def act(viewer: Any, clock: Clock, path: Path, idle: float) -> None:
    """Do all actions, one after the other."""
    from qtpy.QtTest import QTest
    from tests.plugin.strokes import Mouse

    made: dict[str, Any] = {}

    def open_widget(name: str) -> None:
        made[name] = viewer.window.add_plugin_dock_widget("napari-medgs", name)[1]

    clock.run("open the file", lambda: viewer.open(str(path), plugin="napari-medgs"))
    clock.run("open Segment", lambda: open_widget("Segment"), rest=idle + 1)
    widget = made["Segment"]
    control, view = widget.controller, widget.view
    image = viewer.layers[0]
    shape = image.data.shape

    def at_rest() -> bool:
        session = control.session is not None and control.is_current
        return bool(session and not widget.runner.busy and not widget.rest_timer.isActive())

    def at(z: float, y: float, x: float) -> tuple[int, ...]:
        return tuple(round(p * (n - 1)) for p, n in zip((z, y, x), shape, strict=True))

    def stroke(value: int, y: float, first: float, last: float, z: float = 0.5) -> None:
        view.table.choose(value)
        viewer.dims.set_point(0, image.data_to_world(at(z, 0, 0))[0])
        places = [at(z, y, x) for x in np.linspace(first, last, 6)]
        with Mouse(viewer).drag(widget.strokes_layer, places):
            pass

    clock.run("New", view.new_strokes.click, lambda: bool(control.segmenter.is_prepared))
    clock.run("first strokes and mask", lambda: (
        stroke(1, 0.4, 0.3, 0.4), stroke(2, 0.4, 0.6, 0.7), stroke(255, 0.85, 0.3, 0.7)
    ), at_rest, 1.0)  # fmt: skip
    for k in range(4):
        value, x = 1 + k % 2, (0.33, 0.63)[k % 2]
        later = partial(stroke, value, 0.43, x, x + 0.04, 0.47 + k / 50)
        clock.run("further strokes", later, at_rest, 0.6)
    clock.run("undo", widget.undo, at_rest)
    clock.run("scroll", lambda: [
        (viewer.dims.set_current_step(0, k), QTest.qWait(20)) for k in range(40, 70)
    ])  # fmt: skip
    clock.run("Suggest", view.suggest.click, at_rest)
    clock.run("Uncertainty", view.uncertainty.click, lambda: not widget.runner.busy, 1.0)
    view.uncertainty.click()
    clock.run("Statistics", widget.statistics.panel.measure.click,
              lambda: not widget.statistics.runner.busy)  # fmt: skip
    view.table.choose(1)
    clock.run("Grow", widget.tools.panel.edits["grow"].click,
              lambda: not widget.tools.runner.busy and at_rest(), 0.8)  # fmt: skip
    surface = widget.surface
    clock.run("Show 3D", widget.look.show_3d.click,
              lambda: surface.layer is not None and not surface.runner.busy, 1.0)  # fmt: skip
    clock.run("back to 2D", widget.look.show_3d.click)
    clock.run("coronal plane", lambda: widget.look.planes.show_plane(1))
    clock.run("axial plane", lambda: widget.look.planes.show_plane(0))
    clock.run("4 views", widget.look.four.click,
              lambda: widget.look.four_views.space is not None, 1.5)  # fmt: skip
    clock.run("a stroke in 4 views", lambda: stroke(1, 0.45, 0.33, 0.37), at_rest, 0.8)
    clock.run("back to one view", widget.look.four.click)
    clock.run("Save all", view.saving.everything.click, lambda: widget.state.saved)
    for name in WIDGETS:
        clock.run(f"open {name}", lambda name=name: open_widget(name), rest=0.6)
    fit = made["Fit Gaussians"]
    clock.run("Fit", fit.panel.button.click, lambda: not fit.runner.busy, 1.0)
    clock.run("to 3D with Gaussians", lambda: setattr(viewer.dims, "ndisplay", 3), rest=1.0)


if __name__ == "__main__":
    main()
