"""Make the picture of the Classify widget: ``classify_picture.py SET.npz OUT [INDEX]``.

The picture of the documentation shows a test image of BreastMNIST (MedMNIST v2, Yang et al. 2023,
CC BY 4.0), of the ultrasound images of Al-Dhabyani et al. 2020.
"""

from __future__ import annotations

import sys
import time
from typing import Any


def wait(done: Any, seconds: float = 240) -> None:
    """Let the window work until something is done."""
    from qtpy.QtWidgets import QApplication

    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not done():
        QApplication.processEvents()
        time.sleep(0.02)


def main(archive: str, output: str, index: str = "3") -> None:
    """Classify and explain in a viewer and write a picture of its window."""
    import napari
    import numpy as np

    from napari_medgs.plugin.classify.widget import ClassifyWidget, dataset_title

    with np.load(archive) as arrays:
        image = arrays["test_images"][int(index)]
    name = archive.replace("\\", "/").rpartition("/")[2].removesuffix(".npz")
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 940)
    rgb = image.ndim == 3 and image.shape[-1] == 3
    viewer.add_image(image, name=f"{dataset_title(name)} {index}", rgb=rgb)
    widget = ClassifyWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Classify")
    widget.model.setCurrentIndex(widget.model.findText(dataset_title(name)))
    for _ in range(2):  # the first also loads what every prediction needs
        widget.run()
        wait(lambda: not widget.runner.busy)
    widget.run_explanation()
    wait(lambda: not widget.runner.busy)
    viewer.reset_view()
    started = time.monotonic()
    wait(lambda: time.monotonic() - started > 1.5)
    viewer.screenshot(output, canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
