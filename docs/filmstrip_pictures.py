"""Make the filmstrips of the Segment widget: parts.png and steps.png, or the one of a name.

    python docs/filmstrip_pictures.py IMAGE FOLDER [parts|steps]

IMAGE is the MNI152 brain of nilearn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, CAPTION = 420, 8, 30
PLACE = (0.476, 0.391, 0.457)  # (z, y, x) in a ventricle, as shares of the image
BACK = (0.476, 0.59)  # (z, y) of the posterior horns
BESIDE = tuple(  # caudate nuclei, and white matter between the horns
    (*line, *ends)
    for line, ends in (
        (PLACE[:2], (0.405, 0.43)), (PLACE[:2], (0.56, 0.585)), (BACK, (0.47, 0.55)),
    )
)  # fmt: skip
BACKGROUND = ((0.475, 0.52, 0.24, 0.36), (0.475, 0.30, 0.66, 0.76))  # z, y, first x, last x


def strip(frames: Sequence[tuple[str, NDArray[Any]]], output: Path) -> None:
    """Write frames side by side, with captions below."""
    font = ImageFont.load_default(16)
    width = len(frames) * SIDE + (len(frames) - 1) * GAP
    sheet = Image.new("RGB", (width, SIDE + CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for k, (text, frame) in enumerate(frames):
        height, across = frame.shape[:2]
        side = min(height, across)
        top, left = (height - side) // 2, (across - side) // 2
        picture = Image.fromarray(frame[top : top + side, left : left + side, :3])
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (k * (SIDE + GAP), 0))
        pen.text((k * (SIDE + GAP) + 4, SIDE + 6), f"{k + 1}  {text}", "black", font)
    sheet.save(output)


class Studio:
    """A viewer with the Segment widget, and what is done in it."""

    def __init__(self, image: Path) -> None:
        import napari

        from napari_medgs.plugin.reader import read_volume_layers
        from napari_medgs.plugin.segment.widget import SegmentWidget

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1300, 900)
        data, options, _ = read_volume_layers(image)[0]
        self.layer = self.viewer.add_image(data, **options)
        self.shape = data.shape
        self.widget = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Segment")
        self.viewer.dims.set_current_step(0, self.voxel(PLACE)[0])
        self.rest()

    def voxel(self, place: Sequence[float]) -> tuple[int, ...]:
        """Turn shares of the image into a voxel."""
        return tuple(round(p * n) for p, n in zip(place, self.shape, strict=True))

    def rest(self, seconds: float = 0.8) -> None:
        """Let the window draw."""
        self.until(lambda: False, seconds)

    def until(self, done: Callable[[], bool], seconds: float = 240) -> None:
        """Let the window go on until something is so."""
        from qtpy.QtWidgets import QApplication

        limit = time.monotonic() + seconds
        while time.monotonic() < limit and not done():
            QApplication.processEvents()
            time.sleep(0.02)

    def solved(self) -> None:
        """Wait for the mask of a full solve."""
        control = self.widget.controller
        runners = (self.widget.runner, self.widget.parts.runner)
        self.until(lambda: control.is_current and not any(r.busy for r in runners))
        self.rest()

    def paint(self, value: int, lines: Sequence[tuple[float, ...]]) -> None:
        """Draw strokes."""
        layer = self.widget.strokes_layer
        layer.brush_size = 2
        for z, y, first, last in lines:
            with layer.block_history():
                for x in range(round(first * self.shape[2]), round(last * self.shape[2])):
                    layer.paint((round(z * self.shape[0]), round(y * self.shape[1]), x), value)

    def frame(self) -> NDArray[Any]:
        """Return what the canvas shows."""
        self.rest(0.4)
        return np.asarray(self.viewer.screenshot(canvas_only=True, flash=False))


def click_a_part(studio: Studio) -> list[tuple[str, NDArray[Any]]]:
    """Point, walk three notches, click, and correct with one stroke."""
    widget, place = studio.widget, studio.voxel(PLACE)
    widget.view.table.fill([1], 255, {1: "ventricles"})
    widget.view.parts.button.click()
    studio.until(lambda: widget.parts.picker is not None)
    canvas = widget.parts.canvases[0]
    pixel = np.asarray(studio.viewer.window._qt_viewer.canvas.size[::-1]) / 2
    canvas._pixel = tuple(pixel)
    canvas.pointed.emit(tuple(float(p) for p in place))
    frames = [("Point: the part that stands out", studio.frame())]
    widget.parts.walk(-3)
    frames.append(("Shift and the wheel: three notches", studio.frame()))
    widget.parts.walk(3)
    canvas.clicked.emit(tuple(float(p) for p in place), ())
    studio.until(lambda: bool(widget.state.volumes_ml))
    canvas.leave()
    frames.append(("Back, and click: a first mask", studio.frame()))
    widget.view.brush.set_mode("paint")
    studio.paint(1, ((*PLACE[:2], 0.53, 0.55),))
    studio.solved()
    frames.append(("A stroke adds the other side", studio.frame()))
    return frames


def all_steps(studio: Studio) -> list[tuple[str, NDArray[Any]]]:
    """Paint, check, correct, look at it in 3D, save."""
    widget = studio.widget
    widget.view.table.fill([1], 255, {1: "ventricles"})
    widget.view.new_strokes.click()
    studio.paint(1, ((*PLACE[:2], 0.445, 0.465),))
    studio.paint(255, BACKGROUND)
    studio.solved()
    frames = [("Paint", studio.frame())]
    widget.view.uncertainty.click()
    studio.until(lambda: any("uncertainty" in x.name for x in studio.viewer.layers))
    frames.append(("Check: where it is uncertain", studio.frame()))
    widget.view.uncertainty.click()
    studio.paint(1, ((*PLACE[:2], 0.515, 0.54), (*BACK, 0.38, 0.41), (*BACK, 0.585, 0.615)))
    studio.paint(255, BESIDE)
    studio.solved()
    frames.append(("Correct with strokes", studio.frame()))
    widget.look.show_3d.click()
    studio.until(lambda: widget.surface.layer is not None)
    studio.rest(1.5)
    frames.append(("Look at it in 3D", studio.frame()))
    widget.look.show_3d.click()
    from napari_medgs.plugin.segment.steps import Step

    head, saving = widget.view.heads[Step.SAVE], widget.view.saving
    grab = widget.view.grab(head.geometry().united(saving.geometry())).toImage()
    grab = grab.convertToFormat(grab.Format.Format_RGB888)
    rows = np.frombuffer(grab.constBits(), np.uint8).reshape(grab.height(), grab.bytesPerLine())
    panel = rows[:, : grab.width() * 3].reshape(grab.height(), grab.width(), 3)
    side = max(panel.shape[:2]) + 16
    page = np.empty((side, side, 3), np.uint8)
    page[:] = panel[1, 1]
    top = (side - panel.shape[0]) // 2
    page[top : top + panel.shape[0], 8 : 8 + panel.shape[1]] = panel
    frames.append(("Save", page))
    return frames


def main(image: str, folder: str, only: str = "") -> None:
    """Write both strips, or only one."""
    from napari_medgs.plugin.segment import autosave as segment_autosave

    for name, act in (("parts", click_a_part), ("steps", all_steps)):
        if only not in ("", name):
            continue
        with tempfile.TemporaryDirectory() as cache:
            segment_autosave.folder = partial(Path, cache)
            studio = Studio(Path(image))
            strip(act(studio), Path(folder) / f"{name}.png")
            studio.viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
