"""All widgets together in one window: their places, widths and readable texts."""

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget

from napari_medgs.plugin.widgets.base import MedGSWidget, hint, primary_button

NAMES = ("Load", "Fit Gaussians", "Segment", "Gaussians overlay", "Classify", "Export")
WIDTH, HEIGHT = 1280, 800


def luminance(color):
    """Relative luminance by the definition of WCAG 2."""
    parts = np.asarray(color, float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(widget):
    """Contrast of the text that a widget draws with what is behind it."""
    image = widget.grab().toImage().convertToFormat(image_format(widget))
    size = image.width() * image.height() * 4
    pixels = np.frombuffer(image.constBits(), np.uint8, size).reshape(-1, 4)[:, 2::-1]
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    behind = luminance(colors[counts.argmax()])
    ratios = [(max(a, behind) + 0.05) / (min(a, behind) + 0.05) for a in map(luminance, colors)]
    return max(ratios)


def image_format(widget):
    return widget.grab().toImage().Format.Format_RGB32


def test_all_widgets_fit_into_one_small_window(make_viewer, qtbot, session_cache):
    viewer = make_viewer(show=True)
    window = viewer.window._qt_window
    window.resize(WIDTH, HEIGHT)
    docks, widgets = [], []
    for name in NAMES:
        dock, widget = viewer.window.add_plugin_dock_widget("napari-medgs", name)
        docks.append(dock)
        widgets.append(widget)
        qtbot.wait(40)
        assert widget.minimumSizeHint().width() <= 300, name
        assert widget.minimumSizeHint().height() <= 120, name
    assert (window.width(), window.height()) == (WIDTH, HEIGHT)
    tabs = window.tabifiedDockWidgets(docks[0])
    assert set(tabs) == set(docks[1:])
    window.resizeDocks(docks[-1:], [300], Qt.Orientation.Horizontal)
    qtbot.wait(40)
    assert docks[-1].width() <= 320
    # Other docks of napari keep their own places.
    assert not any(
        dock in tabs
        for dock in window.findChildren(QDockWidget)
        if dock.findChild(MedGSWidget) is None
    )
    for theme in ("dark", "light"):
        viewer.theme = theme
        label, button = hint("Press New, then paint."), primary_button("Fit", "")
        for part in (label, button):
            widgets[-1].body.addWidget(part)
            part.show()
        qtbot.wait(40)
        assert contrast(label) >= 4.5, theme
        assert contrast(button) >= 4.5, theme
        assert contrast(widgets[-1].about) >= 4.5, theme
        for part in (label, button):
            part.setParent(None)
    for dock in docks:
        viewer.window.remove_dock_widget(dock)
