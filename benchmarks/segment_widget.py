"""Latency of the Segment widget in a real viewer: from the end of a stroke to the new mask.

``xvfb-run -a python benchmarks/segment_widget.py`` paints strokes into a synthetic volume of
150 x 256 x 256 voxels with four classes and background, and prints medians. What counts is the
time from the stroke's end until the result layer holds the new mask, delivery included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (150, 256, 256)
ROUNDS = 12
CENTERS = ((75, 90, 90), (70, 90, 170), (80, 180, 90), (75, 180, 180))
RADII = ((50, 40, 35), (45, 35, 40), (40, 40, 40), (50, 30, 30))


def volume() -> np.ndarray:
    """Return four noisy ellipsoids."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE, dtype=np.float32, sparse=True)
    image = np.full(SHAPE, 20, np.float32)
    for k, (c, r) in enumerate(zip(CENTERS, RADII, strict=True)):
        inside = sum(((p - q) / s) ** 2 for p, q, s in zip((z, y, x), c, r, strict=True)) < 1
        image[inside] = 100 + 40 * k
    return image + rng.normal(0, 8, SHAPE).astype(np.float32)


def stroke(layer: Any, start: tuple[int, int, int], length: int, value: int) -> None:
    """Paint a stroke along x, as one drag of the mouse."""
    layer.selected_label = value
    with layer.block_history():
        for step in range(0, length, 2):
            layer.paint((start[0], start[1], start[2] + step), value)


def main() -> None:
    """Measure and print a table."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_medgs.plugin import segment_autosave
    from napari_medgs.plugin.widgets.segment import SegmentWidget

    cache = tempfile.TemporaryDirectory()
    segment_autosave.folder = lambda: Path(cache.name)  # type: ignore[assignment]
    viewer = napari.Viewer(show=True)
    viewer.add_image(volume(), name="image", units=("mm",) * 3)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    viewer.dims.set_current_step(0, 75)
    control = widget.control
    seen: dict[str, float] = {}
    control.shown.connect(lambda kind: seen.setdefault(kind, time.perf_counter()))

    def wait(done: Any) -> None:
        limit = time.perf_counter() + 300
        while not done():
            if time.perf_counter() > limit:
                raise TimeoutError("no result within 300 s")
            QApplication.processEvents()
            time.sleep(0.001)

    def at_rest() -> bool:
        return bool(control.session.settled and not widget.runner.busy)

    started = time.perf_counter()
    widget.new_strokes.click()
    layer = widget.strokes_layer
    for value, (z, y, x) in enumerate(CENTERS, 1):
        stroke(layer, (z, y, x - 15), 30, value)
    stroke(layer, (75, 8, 10), 230, 255)
    wait(at_rest)
    print(f"first mask, field fitted: {time.perf_counter() - started:.1f} s")
    times: dict[str, list[float]] = {"painting": [], "preview": [], "quick": [], "full": []}
    for k in range(ROUNDS):
        value = 1 + k % 4
        z, y, x = CENTERS[value - 1]
        viewer.dims.set_current_step(0, z + k - 4)
        wait(at_rest)
        time.sleep(0.1)
        QApplication.processEvents()
        seen.clear()
        before = time.perf_counter()
        stroke(layer, (z + k - 4, y + 3 + k, x - 10), 20, value)
        end = time.perf_counter()
        times["painting"].append(end - before)
        wait(at_rest)
        for kind in ("preview", "quick"):
            if kind in seen:
                times[kind].append(seen[kind] - end)
        widget.rest.stop()
        seen.clear()
        begun = time.perf_counter()
        widget.update_now()
        wait(lambda: "full" in seen and at_rest())
        times["full"].append(seen["full"] - begun)
    print("| what | median s | worst s | n |\n|---|---:|---:|---:|")
    for kind, values in times.items():
        print(f"| {kind} | {statistics.median(values):.3f} | {max(values):.3f} | {len(values)} |")
    viewer.close()
    cache.cleanup()


if __name__ == "__main__":
    main()
