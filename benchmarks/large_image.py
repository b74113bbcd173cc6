"""A CT of 400 x 512 x 512 voxels in the viewer, on two cores and with a limit of memory.

    xvfb-run -a python benchmarks/large_image.py [--data DIR] [--gigabytes 8] [--steps ...]

Opens the image, scrolls, segments an organ with strokes, corrects twice, fits, and opens a pyramid
of levels that is far larger than the memory. A timer in the event loop measures how long the
window does not answer: as wall time, and as processor time of the main thread, which other
processes on a busy machine do not inflate. The CT is a part of a real one (spleen, MSD), zoomed,
with noise added.

The limit is RLIMIT_DATA, the private memory of the process: an allocation beyond it fails.
Resident memory is read from /proc.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.registry import find_data

SHAPE = (400, 512, 512)
NOISE = 12.0  # HU
BACKGROUND = 255
STEPS = ("open", "segment", "fit", "pyramid")
TICK_MS = 10


def make_ct(folder: Path, target: Path, shape: tuple[int, int, int] = SHAPE) -> NDArray[Any]:
    """Write the image as NIfTI; return the organs' labels (Z, Y, X)."""
    import nibabel
    from scipy import ndimage

    from napari_medgs import read_volume

    small = read_volume(folder / "ct_spleen_msd_crop" / "ct.nii.gz")
    organs = sorted((folder / "ct_spleen_msd_crop").glob("*seg*")) or sorted(
        p for p in (folder / "ct_spleen_msd_crop").glob("*.nii.gz") if p.name != "ct.nii.gz"
    )
    labels = np.asarray(read_volume(organs[0]).data[0])
    zoom = [n / m for n, m in zip(shape, small.shape, strict=True)]
    image = ndimage.zoom(small.data[0].astype(np.float32), zoom, order=1)
    rng = np.random.default_rng(0)
    for part in image:
        part += rng.normal(0, NOISE, part.shape).astype(np.float32)
    affine = np.diag([-0.8, -0.8, 1.0, 1.0])
    array = np.rint(image).astype(np.int16).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, affine), target)
    return ndimage.zoom(labels.astype(np.uint8), zoom, order=0)


class Watch:
    """How long the event loop does not answer, and how much of it the main thread computes."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self._timer = QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self.restart()
        self._timer.start()

    def restart(self) -> None:
        """Forget what was measured."""
        self.wall = self.cpu = 0.0
        self._last = time.perf_counter(), time.thread_time()

    def _tick(self) -> None:
        now = time.perf_counter(), time.thread_time()
        self.wall = max(self.wall, now[0] - self._last[0])
        self.cpu = max(self.cpu, now[1] - self._last[1])
        self._last = now


def resident() -> tuple[float, float]:
    """Return resident memory now and at its peak, in GB."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            found[key] = int(value.split()[0]) * 1024 / 1e9
    return found["VmRSS"], found["VmHWM"]


class Scenario:
    """A viewer, and rows of a table about what was done in it."""

    def __init__(self, work: Path) -> None:
        import napari
        from napari.utils import notifications

        self.work = work
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 800)
        self.watch = Watch()
        self.said: list[str] = []
        notifications.notification_manager.notification_ready.connect(
            lambda note: self.said.append(f"{note.severity}: {note.message}")
        )

    def wait(self, done: Callable[[], Any], limit: float = 1800) -> None:
        """Run the event loop until something is so."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, timer, end = QEventLoop(), QTimer(), time.perf_counter() + limit
        timer.timeout.connect(lambda: loop.quit() if done() or time.perf_counter() > end else None)
        timer.start(5)
        loop.exec()
        timer.stop()
        if not done():
            raise TimeoutError(f"not done within {limit:.0f} s; {self.said[-3:]}")

    def in_loop(self, action: Callable[[], Any]) -> None:
        """Do something as a click does: called by the event loop."""
        from qtpy.QtCore import QTimer

        over: list[bool] = []

        def run() -> None:
            try:
                action()
            finally:
                over.append(True)

        QTimer.singleShot(0, run)
        self.wait(lambda: over)

    def settle(self) -> None:
        """Let the window draw."""
        end = time.perf_counter() + 0.3
        self.wait(lambda: time.perf_counter() > end)

    @contextmanager
    def measured(self, what: str) -> Iterator[None]:
        """Print a row of the table about a step."""
        self.settle()
        self.watch.restart()
        said = len(self.said)
        began, busy = time.perf_counter(), time.process_time()
        try:
            yield
            self.settle()
        finally:
            now, peak = resident()
            cores = time.process_time() - busy
            print(
                f"| {what} | {time.perf_counter() - began - 0.3:.1f} | {cores:.1f} | "
                f"{self.watch.wall:.2f} | {self.watch.cpu:.2f} | {now:.2f} | {peak:.2f} |",
                flush=True,
            )
            for text in self.said[said:]:
                print(f"  said: {text}", flush=True)

    def open(self, path: Path) -> None:
        """Open the file as a dropped one, and leaf through the slices."""
        with self.measured("open the file"):
            self.in_loop(lambda: self.viewer.open(path, plugin="napari-medgs"))
        with self.measured("leaf through 40 slices"):
            for k in range(0, 400, 10):
                self.in_loop(lambda k=k: self.viewer.dims.set_current_step(0, k))

    def segment(self, truth: NDArray[Any]) -> None:
        """Strokes, a mask, a correction."""
        from napari_medgs.plugin.layer_frame import frame_of
        from napari_medgs.plugin.segment import autosave
        from napari_medgs.plugin.segment.widget import SegmentWidget

        autosave.folder = lambda: self.work / "sessions"  # type: ignore[assignment]
        with self.measured("open the Segment widget"):
            widget = SegmentWidget(self.viewer)
            self.viewer.window.add_dock_widget(widget, name="Segment")
        control = widget.controller
        shown: list[str] = []
        control.shown.connect(shown.append)
        prepared: list[bool] = []
        control.prepared.connect(lambda: prepared.append(True))
        with self.measured("New, until the strokes layer is there"):
            self.in_loop(widget.view.new_strokes.click)
            self.wait(lambda: widget.strokes_layer is not None or self.said, 60)
        layer = widget.strokes_layer
        if layer is None:
            return
        shape = layer.data.shape
        rows = [truth.shape[k] / shape[k] for k in range(3)]
        print(f"  strokes on {' x '.join(map(str, shape))}", frame_of(layer).grid.spacing)
        with self.measured("field and solver, while the user paints"):
            for place, value in strokes_in(truth):
                at = [(round(z / rows[0]), round(y / rows[1]), round(x / rows[2]))
                      for z, y, x in place]  # fmt: skip
                self.in_loop(lambda at=at, value=value: paint(layer, at, value))
            self.wait(lambda: prepared and shown and not widget.runner.busy)
        mask = widget.result_layer.data
        step = tuple(np.round(np.arange(n) * r).astype(int) for n, r in zip(shape, rows))
        real = truth[np.ix_(*(np.minimum(s, m - 1) for s, m in zip(step, truth.shape)))]
        both = 2 * np.sum((mask == 1) & (real == 1)) / (np.sum(mask == 1) + np.sum(real == 1))
        print(f"  Dice of class 1: {both:.3f}")
        for k in (1, 2):
            shown.clear()
            with self.measured(f"correction {k}, until the volume is updated"):
                z = round((0.4 + 0.1 * k) * shape[0])
                spot = [(z, y, 10 + k) for y in range(20, 60)]
                self.in_loop(lambda spot=spot: paint(layer, spot, BACKGROUND))
                self.wait(lambda: shown and not widget.runner.busy)
        self.viewer.window.remove_dock_widget(widget)
        self.in_loop(lambda: [self.viewer.layers.remove(x) for x in list(self.viewer.layers)[1:]])

    def fit(self) -> None:
        """Fit with the defaults; look at the result in slices and in space."""
        from napari_medgs.plugin.fit.widget import FitWidget

        widget = FitWidget(self.viewer)
        self.viewer.window.add_dock_widget(widget, name="Fit")
        with self.measured("Fit, until its layers are there"):
            self.in_loop(widget.panel.button.click)
            self.wait(lambda: not widget.runner.busy)
        print(f"  {widget.result.text()}")
        with self.measured("leaf through 20 slices with the Gaussians"):
            for k in range(0, 200, 10):
                self.in_loop(lambda k=k: self.viewer.dims.set_current_step(0, k))
        with self.measured("the Gaussians in space"):
            self.viewer.layers[0].visible = False
            self.in_loop(lambda: setattr(self.viewer.dims, "ndisplay", 3))
        self.viewer.dims.ndisplay = 2
        self.viewer.window.remove_dock_widget(widget)

    def pyramid(self) -> None:
        """Fit a pyramid of dask arrays of which only the coarser levels fit into the memory."""
        import dask.array as da

        from napari_medgs.plugin.fit.widget import FitWidget

        self.viewer.layers.clear()
        rng = np.random.default_rng(0)
        coarse = rng.normal(100, 5, (100, 128, 128)).astype(np.float32)
        coarse[30:70, 40:90, 40:90] += 80
        levels = [da.from_array(coarse, chunks=(20, 128, 128))]
        for _ in range(4):
            finer = levels[0]
            for axis in range(3):
                finer = da.repeat(finer, 2, axis=axis)
            levels.insert(0, finer)
        with self.measured("open a pyramid of 5 levels, " + " x ".join(map(str, levels[0].shape))):
            self.in_loop(lambda: self.viewer.add_image(
                levels, multiscale=True, name="pyramid", scale=(0.1,) * 3, units=("mm",) * 3,
                contrast_limits=(80, 200)))  # fmt: skip
        widget = FitWidget(self.viewer)
        self.viewer.window.add_dock_widget(widget, name="Fit")
        widget.settings.set_value("iterations", 5)
        with self.measured("Fit of the pyramid, 5 iterations"):
            self.in_loop(widget.panel.button.click)
            self.wait(lambda: not widget.runner.busy)
        print(f"  {widget.result.text()}")


def strokes_in(truth: NDArray[Any]) -> Iterator[tuple[list[tuple[int, int, int]], int]]:
    """Return short strokes in two classes and around them, on three slices."""
    from scipy import ndimage

    filled = np.flatnonzero((truth == 1).any(axis=(1, 2)))
    for z in np.percentile(filled, (25, 50, 75)).astype(int):
        depth = ndimage.distance_transform_edt(truth[z] == 1)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        reach = int(depth.max() * 0.7)
        yield [(int(z), int(y), int(x + k)) for k in range(-reach, reach)], 1
        away = ndimage.distance_transform_edt(truth[z] == 0)
        ring = np.argwhere((away > 8) & (away < 10))
        yield [tuple(map(int, (z, *place))) for place in ring[::3]], BACKGROUND


def paint(layer: Any, places: list[tuple[int, int, int]], value: int) -> None:
    """Paint a stroke, as one drag of the mouse."""
    layer.selected_label = value
    layer.brush_size = 3
    with layer.block_history():
        for place in places:
            layer.paint(place, value)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        path = work / "ct.nii"
        truth = make_ct(find_data(given.data), path)
        print(f"load before the run {os.getloadavg()[0]:.1f}; {sys.version.split()[0]}")
        limit = int(given.gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        print(
            "| step | s | CPU s | longest pause, s | of it the main thread, CPU s | GB | peak GB |"
        )
        print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
        scenario = Scenario(work)
        if set(given.steps) & {"open", "segment", "fit"}:
            scenario.open(path)
        if "segment" in given.steps:
            scenario.segment(truth)
        if "fit" in given.steps:
            scenario.fit()
        if "pyramid" in given.steps:
            scenario.pyramid()
        scenario.viewer.close()


if __name__ == "__main__":
    main()
