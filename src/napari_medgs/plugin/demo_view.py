"""A viewer with an image and its fitted field, as a picture: ``python -m`` IMAGE FIELD OUT.

Run in a process of its own by the demo.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def show_demo(viewer: Any, image: Path, field_file: Path) -> None:
    """Fill a viewer: image, reconstruction, mask and Gaussians, with the Overlay widget."""
    from napari_medgs.io.fields import load_field
    from napari_medgs.plugin.anatomy.follower import follow_planes
    from napari_medgs.plugin.field_images import render_field
    from napari_medgs.plugin.layer_frame import LayerFrame
    from napari_medgs.plugin.layer_metadata import FIELD_KEY, FRAME_KEY
    from napari_medgs.plugin.overlay.layer import GaussianOverlay, OverlayStyle
    from napari_medgs.plugin.reader import read_volume_layers

    follow_planes(viewer)
    field = load_field(field_file)
    data, options, _ = read_volume_layers(image)[0]
    base = viewer.add_image(data, **options)
    rendered = render_field(field)
    place = {
        key: options[key]
        for key in ("scale", "translate", "units", "axis_labels")
        if key in options
    }
    frame = LayerFrame(field.info.grid)
    links = {FIELD_KEY: field, FRAME_KEY: frame.to_dict()}
    viewer.add_image(
        rendered.images[0],
        name="reconstruction",
        colormap="gray",
        contrast_limits=base.contrast_limits,
        metadata=dict(links),
        **place,
    )
    if rendered.labels is not None:
        viewer.add_labels(
            rendered.labels, name="mask", opacity=0.25, metadata=dict(links), **place
        )
        sizes = np.count_nonzero(rendered.labels, axis=(1, 2))
        viewer.dims.set_current_step(0, int(sizes.argmax()))
    style = OverlayStyle(color_by="intensity", opacity=0.8)
    overlay = GaussianOverlay(viewer, field, frame, base, style)
    overlay.layer.metadata.update(links)


def main(image: str, field_file: str, output: str) -> None:
    """Write the picture of a viewer window."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 940)
    show_demo(viewer, Path(image), Path(field_file))
    viewer.window.add_plugin_dock_widget("napari-medgs", "Fit Gaussians")
    viewer.reset_view()
    for _ in range(40):
        QApplication.processEvents()
        time.sleep(0.02)
    viewer.screenshot(output, canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
