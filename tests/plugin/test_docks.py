"""All widgets together in one window: their places, widths and readable texts."""

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QLabel,
    QLineEdit,
    QScrollArea,
    QTabBar,
    QTabWidget,
    QWidget,
)

from napari_medgs.plugin.segment.scissors.panel import ScissorsPanel
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import Section, hint, primary_button

NAMES = (
    "Load", "Fit Gaussians", "Segment", "Learn", "Discover", "Gaussians overlay", "Classify",
    "Export",
)  # fmt: skip
WIDTH, HEIGHT = 1280, 800
TEXTS = (QLabel, QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit)


def luminance(color):
    """Relative luminance by the definition of WCAG 2."""
    parts = np.asarray(color, float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def pixels_of(widget):
    """What a widget draws, (rows, columns, 3)."""
    image = widget.grab().toImage()
    image = image.convertToFormat(image.Format.Format_RGB32)
    size = image.width() * image.height() * 4
    pixels = np.frombuffer(image.constBits(), np.uint8, size)
    return pixels.reshape(image.height(), image.width(), 4)[..., 2::-1].copy()


def contrast(pixels):
    """Contrast of a text with what is behind it, the most frequent color."""
    flat = pixels.reshape(-1, 3).astype(np.uint32) @ (1 << 16, 1 << 8, 1)
    values, counts = np.unique(flat, return_counts=True)
    colors = luminance(np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], axis=-1))
    behind = colors[counts.argmax()]
    return ((np.maximum(colors, behind) + 0.05) / (np.minimum(colors, behind) + 0.05)).max()


def texts(content):
    """All visible controls with a text that may be used, and the texts."""
    for widget in content.findChildren(QWidget):
        if isinstance(widget, TEXTS) and widget.isVisible() and widget.isEnabled():
            text = widget.currentText() if isinstance(widget, QComboBox) else widget.text()
            if text:
                yield widget, text


def check_texts(content, where):
    """Check the contrast of all texts of a panel, as WCAG 2 (AA) wants it."""
    pixels = pixels_of(content)
    for widget, text in texts(content):
        corner = widget.mapTo(content, QPoint(0, 0))
        part = pixels[corner.y() :, corner.x() :][: widget.height(), : widget.width()]
        assert contrast(part) >= 4.5, (where, text)


def check_widths(content, where):
    """Check that no text is cut off: labels in one line, buttons and boxes with a text."""
    for widget, text in texts(content):
        if isinstance(widget, (QComboBox, QLineEdit, QAbstractSpinBox)):
            continue  # they show the part of a long text that is looked for
        if isinstance(widget, QLabel) and (widget.wordWrap() or "<" in text):
            assert widget.height() >= widget.heightForWidth(widget.width()) - 2, (where, text)
            continue
        shown = max(text.replace("&", "").split("\n"), key=len)
        width = widget.fontMetrics().horizontalAdvance(shown)
        assert widget.width() >= width - 1, (where, text)
    for bar in content.findChildren(QTabBar):
        needed = sum(bar.tabSizeHint(k).width() for k in range(bar.count()))
        assert needed <= bar.width() + 1, (where, bar.tabText(0))


def pages(content):
    """Show one page of the tabs after the other."""
    tabs = content.findChildren(QTabWidget)
    yield None
    for tab in tabs:
        for page in range(1, tab.count()):
            tab.setCurrentIndex(page)
            yield tab.tabText(page)
        tab.setCurrentIndex(0)


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
    viewer.add_image(np.zeros((4, 8, 8), np.float32), name="scan")
    for widget in widgets:
        for section in widget.findChildren(Section):
            section.open()
        for made in widget.findChildren(ScissorsPanel):
            made.details.setVisible(True)
    for theme in ("dark", "light"):
        viewer.theme = theme
        for dock, widget in zip(docks, widgets, strict=True):
            dock.raise_()
            qtbot.wait(40)
            scroll = widget.findChild(QScrollArea)
            assert scroll.horizontalScrollBar().maximum() == 0, (theme, widget.title)
            for page in pages(widget):
                qtbot.wait(20)
                check_texts(scroll.widget(), (theme, widget.title, page))
                check_widths(scroll.widget(), (theme, widget.title, page))
        label, button = hint("Press New, then paint."), primary_button("Fit", "")
        for part in (label, button):
            widgets[-1].body.addWidget(part)
            part.show()
        qtbot.wait(40)
        assert contrast(pixels_of(label)) >= 4.5, theme
        assert contrast(pixels_of(button)) >= 4.5, theme
        assert contrast(pixels_of(widgets[-1].about)) >= 4.5, theme
        for part in (label, button):
            part.setParent(None)
    for dock in docks:
        viewer.window.remove_dock_widget(dock)
