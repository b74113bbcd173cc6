"""Make the picture of the Segment widget: ``python docs/segment_picture.py IMAGE OUT``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Strokes (z, y, first x, last x) as shares of the MNI152 brain.
STROKES = {
    1: ((0.52, 0.50, 0.28, 0.36), (0.52, 0.40, 0.66, 0.72)),
    2: ((0.52, 0.46, 0.42, 0.44), (0.52, 0.46, 0.56, 0.58)),
    255: ((0.52, 0.02, 0.1, 0.9), (0.52, 0.98, 0.1, 0.9)),
}


def paint(layer: Any, shape: tuple[int, ...]) -> None:
    """Draw the strokes."""
    for value, lines in STROKES.items():
        for z, y, first, last in lines:
            with layer.block_history():
                for x in range(round(first * shape[2]), round(last * shape[2])):
                    layer.paint((round(z * shape[0]), round(y * shape[1]), x), value)


def main(image: str, output: str) -> None:
    """Segment in a viewer and write a picture of its window."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_medgs.plugin.reader import read_volume_layers
    from napari_medgs.plugin.segment import autosave as segment_autosave
    from napari_medgs.plugin.segment.widget import SegmentWidget

    with tempfile.TemporaryDirectory() as cache:
        segment_autosave.folder = lambda: Path(cache)
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1500, 940)
        data, options, _ = read_volume_layers(Path(image))[0]
        viewer.add_image(data, **options)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        viewer.dims.set_current_step(0, round(0.52 * data.shape[0]))
        widget.view.table.fill([1, 2], 255, {1: "brain", 2: "ventricles"})
        widget.view.new_strokes.click()
        layer = widget.strokes_layer
        layer.brush_size = 2
        paint(layer, data.shape)
        limit = time.monotonic() + 240
        while time.monotonic() < limit and not (
            widget.controller.session.is_current and not widget.runner.busy
        ):
            QApplication.processEvents()
            time.sleep(0.02)
        widget.state.summary = "Mask updated"  # seconds are for the benchmarks
        widget.view.table.choose(1)
        viewer.reset_view()
        for _ in range(40):
            QApplication.processEvents()
            time.sleep(0.02)
        viewer.screenshot(output, canvas_only=False, flash=False)
        viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
