"""Latency of the Segment widget in a real viewer: from the end of a stroke to the new mask.

    xvfb-run -a python benchmarks/segment_widget.py [--data DIR] [--image brain|noise]

Paints strokes into 150 x 256 x 256 voxels: a brain MRI with five classes, or (needs no data) four
noisy ellipsoids on noisy ground, and prints medians. What counts is the time from the stroke's end
until the result layer holds the new mask, delivery included. For comparison the first mask is made
by the core alone, in a process of its own before.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from suite.registry import find_data

SHAPE = (150, 256, 256)
ROUNDS = 12
BACKGROUND = 255
CENTERS = ((75, 90, 90), (70, 90, 170), (80, 180, 90), (75, 180, 180))
RADII = ((50, 40, 35), (45, 35, 40), (40, 40, 40), (50, 30, 30))
Places = list[tuple[int, ...]]


@dataclass
class Scene:
    """An image and what is painted in it.

    Attributes
    ----------
    volume : Volume
    axis : int
        Normal of the slices that are painted in.
    first : list of (places, value)
        The strokes before the first mask.
    later : callable
        Number of the round -> places and value of one more stroke.
    """

    volume: Volume
    axis: int
    first: list[tuple[Places, int]]
    later: Callable[[int], tuple[Places, int]]


def noise() -> Scene:
    """Return four noisy ellipsoids: noise everywhere, so that all voxels are foreground."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE, dtype=np.float32, sparse=True)
    image = np.full(SHAPE, 20, np.float32)
    for k, (c, r) in enumerate(zip(CENTERS, RADII, strict=True)):
        inside = sum(((p - q) / s) ** 2 for p, q, s in zip((z, y, x), c, r, strict=True)) < 1
        image[inside] = 100 + 40 * k
    image += rng.normal(0, 8, SHAPE).astype(np.float32)

    def line(z: int, y: int, x: int, length: int) -> Places:
        return [(z, y, x + step) for step in range(0, length, 2)]

    def later(k: int) -> tuple[Places, int]:
        z, y, x = CENTERS[k % 4]
        return line(z + k - 4, y + 3 + k, x - 10, 20), 1 + k % 4

    first = [(line(z, y, x - 15, 30), k) for k, (z, y, x) in enumerate(CENTERS, 1)]
    return Scene(Volume.from_array(image), 0, [*first, (line(75, 8, 10, 230), BACKGROUND)], later)


def brain(folder: Path) -> Scene:
    """Return a brain MRI with strokes in five deep structures."""
    from segmentation_cases import BACKGROUND as DRAWN_BACKGROUND
    from segmentation_cases import scribble_slice, simulate_scribbles
    from segmentation_latency import brain as brain_and_truth

    volume, truth, axis = brain_and_truth(folder)
    drawn = simulate_scribbles(truth, axis, 3, 0)

    def places(marks: NDArray[Any]) -> Places:
        return [tuple(int(v) for v in place) for place in np.argwhere(marks)]

    first = [
        (places(drawn == value), BACKGROUND if value == DRAWN_BACKGROUND else int(value) - 1)
        for value in np.unique(drawn[drawn > 0])
    ]
    rng = np.random.default_rng(5)

    def later(k: int) -> tuple[Places, int]:
        value = 1 + k % int(truth.max())
        hits = np.flatnonzero((truth == value).any(axis=tuple(a for a in range(3) if a != axis)))
        index: list[Any] = [slice(None)] * 3
        index[axis] = int(rng.choice(hits))
        stroke = np.zeros(truth.shape, np.bool_)
        stroke[tuple(index)] = scribble_slice(truth[tuple(index)], rng) == value + 1
        return places(stroke), value

    return Scene(volume, axis, first, later)


def core_alone(scene: Scene) -> str:
    """Say how long the first mask takes without a viewer."""
    from napari_medgs.segmentation import Prompts, SegmentModel
    from napari_medgs.segmentation.api import fit_for_segmentation

    marks = np.zeros(scene.volume.shape, np.uint8)
    for places, value in scene.first:
        marks[tuple(np.transpose(places))] = value
    started = time.perf_counter()
    model = SegmentModel(scene.volume, fit_for_segmentation(scene.volume))
    ready = time.perf_counter()
    model.update(Prompts(labels=marks, background=BACKGROUND))
    done = time.perf_counter()
    return f"field and set-up {ready - started:.1f} s, first mask {done - ready:.2f} s after"


def stroke(layer: Any, places: Places, value: int) -> None:
    """Paint a stroke, as one drag of the mouse."""
    layer.selected_label = value
    with layer.block_history():
        for place in places:
            layer.paint(place, value)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--image", choices=("brain", "noise"), default="brain")
    parser.add_argument("--core", action="store_true", help="the first mask by the core alone")
    given = parser.parse_args()
    if not given.core:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--core"], check=True)
    scene = brain(find_data(given.data)) if given.image == "brain" else noise()
    if given.core:
        print(f"{given.image}, the core alone: {core_alone(scene)}", flush=True)
        return

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_medgs.plugin.layer_frame import grid_kwargs
    from napari_medgs.plugin.segment import autosave as segment_autosave
    from napari_medgs.plugin.segment.widget import SegmentWidget

    cache = tempfile.TemporaryDirectory()
    segment_autosave.folder = lambda: Path(cache.name)  # type: ignore[assignment]
    viewer = napari.Viewer(show=True)
    place = grid_kwargs(scene.volume.grid)
    image = viewer.add_image(scene.volume.channel(0), name="image", **place)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    viewer.dims.order = (scene.axis, *(a for a in range(3) if a != scene.axis))
    control = widget.controller
    seen: dict[str, float] = {}
    control.shown.connect(lambda kind: seen.update({kind: time.perf_counter()}))
    control.suggested.connect(lambda _: seen.setdefault("suggest", time.perf_counter()))
    prepared: list[float] = []
    control.prepared.connect(lambda: prepared.append(time.perf_counter()))

    def wait(done: Any) -> None:
        limit = time.perf_counter() + 300
        while not done():
            if time.perf_counter() > limit:
                raise TimeoutError("no result within 300 s")
            QApplication.processEvents()
            time.sleep(0.001)

    def at_rest() -> bool:
        return bool(control.session.is_current and not widget.runner.busy)

    wait(lambda: True)
    started = time.perf_counter()
    widget.view.new_strokes.click()
    layer = widget.strokes_layer
    layer.brush_size = 2
    wait(lambda: bool(prepared))
    for places, value in scene.first:
        stroke(layer, places, value)
    painted = time.perf_counter()
    wait(at_rest)
    shown = max(
        seen.get("incremental", 0.0), seen.get("full", 0.0)
    )  # the first is never incremental in fact
    print(
        f"{given.image}, the widget: field and set-up {prepared[0] - started:.1f} s after New, "
        f"first mask {shown - painted:.2f} s after the last stroke; "
        f"{len(control.field):,} Gaussians",
        flush=True,
    )
    times: dict[str, list[float]] = {
        kind: [] for kind in ("painting", "preview", "incremental", "full", "suggest")
    }
    for k in range(ROUNDS):
        places, value = scene.later(k)
        viewer.dims.set_point(scene.axis, image.data_to_world(places[0])[scene.axis])
        wait(at_rest)
        time.sleep(0.1)
        QApplication.processEvents()
        seen.clear()
        before = time.perf_counter()
        stroke(layer, places, value)
        end = time.perf_counter()
        times["painting"].append(end - before)
        wait(at_rest)
        for kind in ("preview", "incremental"):
            if kind in seen:
                times[kind].append(seen[kind] - end)
        widget.rest_timer.stop()
        seen.clear()
        begun = time.perf_counter()
        widget.update_now()
        wait(lambda: "full" in seen and at_rest())
        times["full"].append(seen["full"] - begun)
        begun = time.perf_counter()
        widget.view.suggest.click()
        wait(lambda: "suggest" in seen and at_rest())
        times["suggest"].append(seen["suggest"] - begun)
    print("| what | median s | worst s | n |\n|---|---:|---:|---:|")
    for kind, values in times.items():
        print(f"| {kind} | {statistics.median(values):.3f} | {max(values):.3f} | {len(values)} |")
    viewer.close()
    cache.cleanup()


if __name__ == "__main__":
    main()
