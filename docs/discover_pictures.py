"""Make the pictures of the Discover widget: ``python docs/discover_pictures.py IMAGE FOLDER``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 280


def wait(done: Callable[[], bool]) -> None:
    """Let the window live until something is true, and a little longer."""
    from qtpy.QtWidgets import QApplication

    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit and not done():
        QApplication.processEvents()
        time.sleep(0.02)
    for _ in range(40):
        QApplication.processEvents()
        time.sleep(0.02)


def main(image: str, folder: str) -> None:
    """Find tissues and parts in a viewer, and write pictures of its window."""
    import napari

    from napari_medgs.plugin.discover.parts_tab import COUNTS
    from napari_medgs.plugin.discover.widget import DiscoverWidget
    from napari_medgs.plugin.reader import read_volume_layers

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 900)
    data, options, _ = read_volume_layers(Path(image))[0]
    viewer.add_image(data, **options)
    widget = DiscoverWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Discover")
    viewer.dims.set_current_step(0, round(0.47 * data.shape[0]))
    widget.tissues.bias.setChecked(True)
    widget.find_tissues()
    wait(lambda: widget.tissue_layer is not None)
    viewer.reset_view()
    wait(lambda: True)
    viewer.screenshot(str(Path(folder, "tissues.png")), canvas_only=False, flash=False)
    widget.tissue_layer.visible = False
    widget.tabs.setCurrentIndex(1)
    widget.parts_tab.slider.setValue(COUNTS.index(32))
    widget.find_parts()
    wait(lambda: widget.parts.embedding is not None)
    widget.tabs.setCurrentIndex(2)
    widget.disc.choose(widget.parts_tab._label(4))
    widget.disc.picked.emit(widget.disc.chosen)
    wait(lambda: True)
    viewer.screenshot(str(Path(folder, "map.png")), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
