"""The Overlay widget: how the Gaussians of a field are drawn over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox
from superqt import QLabeledDoubleSlider

from napari_medgs.plugin.field_images import errors_at
from napari_medgs.plugin.layer_frame import array_of, same_place
from napari_medgs.plugin.layer_metadata import SOURCE_KEY, field_of, frame_of_field, siblings
from napari_medgs.plugin.overlay.colors import intensity_limits
from napari_medgs.plugin.overlay.controls import SlabRow, ThresholdRow
from napari_medgs.plugin.overlay.layer import GaussianOverlay, OverlayStyle, find_overlay
from napari_medgs.plugin.report import guarded
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import choice_box, int_box
from napari_medgs.plugin.widgets.elements import add_row, hint
from napari_medgs.plugin.widgets.layers import LayerCombo, is_kind, one_per_field

if TYPE_CHECKING:
    from napari.viewer import Viewer

DEFAULTS = OverlayStyle()
COLORINGS = {
    "intensity": "intensity",
    "class": "class",
    "error": "error of the fit",
    "score": "score of an explanation",
}
COLORMAPS = ("turbo", "viridis", "magma", "inferno", "plasma", "gray", "twilight", "coolwarm")
APPLY_MS = 60  # a moving slider redraws at most this often


class OverlayWidget(MedGSWidget):
    """Show, hide and style the Gaussians of a field.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = "The overlay"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        form = self.form()
        self.field = LayerCombo(self, lambda layer: one_per_field(self.viewer, layer))
        add_row(form, "Field", self.field, "A result of Fit, or an opened field file.")
        self.show_it = QCheckBox("Show the Gaussians")
        self.show_it.setToolTip("Draw the Gaussians in a layer of their own.")
        form.addRow(self.show_it)
        self.color_by = choice_box(COLORINGS, DEFAULTS.color_by)
        add_row(
            form,
            "Color by",
            self.color_by,
            "Intensity, most probable class, absolute error of the fit at the Gaussian, or "
            "contribution to a class that Classify explained.",
        )
        self.image = LayerCombo(self, is_kind("Image"), none="the fitted image")
        add_row(
            form,
            "Reference",
            self.image,
            "The image to compute errors against, for a field from a file.",
        )
        self.colormap = choice_box({name: name for name in COLORMAPS}, DEFAULTS.colormap)
        add_row(form, "Colormap", self.colormap, "For intensity, error and score.")
        self.size = _slider(0.2, 3.0, DEFAULTS.sigmas)
        add_row(
            form,
            "Size",
            self.size,
            "Size of the drawn Gaussians in standard deviations; they end at 3.",
        )
        self.opacity = _slider(0.0, 1.0, DEFAULTS.opacity)
        add_row(form, "Opacity", self.opacity, "Opacity of the overlay.")
        self.hide_background = QCheckBox("Hide the background")
        self.hide_background.setChecked(DEFAULTS.hide_background)
        self.hide_background.setToolTip(
            "Hide Gaussians of the background class; without classes, dark ones."
        )
        form.addRow(self.hide_background)
        self.hiding = ThresholdRow()
        add_row(
            form,
            "Darkest in 3D",
            self.hiding,
            "In 3D, Gaussians darker than this are left out, so that air does not hide the "
            "anatomy. Automatic: Otsu's threshold of their intensities.",
        )
        self.slab = SlabRow()
        add_row(
            form,
            "Clip in 3D",
            self.slab,
            "Draw only a slab across one axis, in millimeters from the first voxel.",
        )
        self.limit = int_box(100, 50_000, DEFAULTS.most_ellipsoids, step=500)
        add_row(
            form,
            "Most in 3D",
            self.limit,
            "Number of ellipsoids in the 3D view, largest first; more are slower to rotate.",
        )
        self.note = hint("Fit an image or open a field file first.")
        self.body.addWidget(self.note)
        self.body.addStretch(1)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(APPLY_MS)
        self._timer.timeout.connect(self.apply)
        self._loading = False
        for box in (self.color_by, self.colormap):
            box.currentIndexChanged.connect(lambda *_: self._schedule())
        for slider in (self.size, self.opacity):
            slider.valueChanged.connect(lambda *_: self._schedule())
        self.hide_background.toggled.connect(lambda *_: self._schedule())
        self.limit.valueChanged.connect(lambda *_: self._schedule())
        self.hide_background.toggled.connect(self.hiding.setEnabled)
        for part in (self.hiding, self.slab):
            part.changed.connect(self._schedule)
        self.image.changed.connect(self._schedule)
        self.image.changed.connect(self._show_choices)
        self.show_it.toggled.connect(lambda *_: self._schedule())
        self.field.changed.connect(self.load)
        dims = self.viewer.dims.events
        for emitter in (dims.current_step, dims.ndisplay, dims.order):
            self.listen(emitter, self._describe)
        self.listen(self.viewer.layers.events.inserted, self.load)
        self.listen(self.viewer.layers.events.removed, self.load)
        self.load()

    @property
    def overlay(self) -> GaussianOverlay | None:
        """The overlay of the chosen field, if there is one."""
        layer = self.field.layer
        field = field_of(layer) if layer is not None else None
        return find_overlay(self.viewer.layers, field) if field is not None else None

    def style(self) -> OverlayStyle:
        """Return what is set.

        Raises
        ------
        ParameterError
            When a value is out of range.
        """
        return OverlayStyle(
            color_by=self.color_by.currentData(),
            sigmas=self.size.value(),
            opacity=self.opacity.value(),
            colormap=self.colormap.currentData(),
            hide_background=self.hide_background.isChecked(),
            most_ellipsoids=self.limit.value(),
            threshold=self.hiding.value,
            clip_axis=self.slab.axis,
            clip=self.slab.clip,
        )

    def load(self, event: Any = None) -> None:
        """Show the style of the chosen field's overlay in the controls."""
        overlay = self.overlay
        layer = self.field.layer
        self._loading = True
        self._show_choices()
        self.show_it.setEnabled(layer is not None)
        shown = overlay is not None and overlay.layer is not None and overlay.layer.visible
        self.show_it.setChecked(shown)
        if overlay is not None:
            style = overlay.style
            self.color_by.setCurrentIndex(list(COLORINGS).index(style.color_by))
            if style.colormap in COLORMAPS:
                self.colormap.setCurrentIndex(COLORMAPS.index(style.colormap))
            self.size.setValue(style.sigmas)
            self.opacity.setValue(style.opacity)
            self.hide_background.setChecked(style.hide_background)
            self.limit.setValue(style.most_ellipsoids)
            self.hiding.load(intensity_limits(overlay.field), overlay.tissue, style.threshold)
            self.slab.load(overlay.extent, style.clip_axis, style.clip)
        self._loading = False
        self._describe()

    def _show_choices(self) -> None:
        """Gray out the colorings that the chosen field has nothing for, and say why."""
        layer, overlay = self.field.layer, self.overlay
        field = None if layer is None else field_of(layer)
        missing = {}
        if field is not None and not field.info.class_names:
            missing["class"] = "This field has no classes: fit it with a mask to get some."
        if overlay is None or overlay.scores is None:
            missing["score"] = "No scores yet: explain a class with the Classify widget."
        has_errors = overlay is not None and overlay.errors is not None
        if layer is not None and not has_errors and self._compared(layer) is None:
            missing["error"] = "The image that was fitted must be in the viewer."
        model = self.color_by.model()
        for index, name in enumerate(COLORINGS):
            model.item(index).setEnabled(name not in missing)
            model.item(index).setToolTip(missing.get(name, ""))

    def _schedule(self) -> None:
        if not self._loading:
            self._timer.start()

    @guarded
    def apply(self) -> None:
        """Draw what is set; a coloring that is not possible becomes a notification."""
        layer = self.field.layer
        if layer is None:
            return
        overlay, wanted = self.overlay, self.show_it.isChecked()
        try:
            if overlay is None and wanted:
                overlay = self._create(layer)
            elif overlay is not None and overlay.layer is not None:
                self._give_errors(overlay, layer)
                overlay.restyle(**vars(self.style()))
                overlay.layer.visible = wanted
        except Exception:
            self.load()
            raise
        self._describe()

    def _create(self, layer: Any) -> GaussianOverlay:
        field, style = field_of(layer), self.style()
        assert field is not None
        errors = self._errors(layer) if style.color_by == "error" else None
        overlay = GaussianOverlay(
            self.viewer,
            field,
            frame_of_field(layer),
            layer,
            style,
            errors=errors,
            name=f"{layer.metadata.get(SOURCE_KEY, layer.name)} · Gaussians",
        )
        overlay.layer.metadata.update(layer.metadata)
        return overlay

    def _give_errors(self, overlay: GaussianOverlay, layer: Any) -> None:
        compare = self.image.layer is not None
        if self.color_by.currentData() == "error" and (overlay.errors is None or compare):
            overlay.errors = self._errors(layer)

    def _errors(self, layer: Any) -> Any:
        """Return errors against the chosen image, or the one that the fit was made of."""
        field, frame, pair = field_of(layer), frame_of_field(layer), self._compared(layer)
        if field is None or pair is None:
            return None
        target, rendered = (frame.to_canonical(array_of(x))[None] for x in pair)
        return errors_at(field, target, rendered)

    def _compared(self, layer: Any) -> tuple[Any, Any] | None:
        """Return the image and the reconstruction whose difference is the error, if both exist."""
        image = self.image.layer
        if image is None:
            name = layer.metadata.get(SOURCE_KEY)
            found = [x for x in self.viewer.layers if x.name == name]
            image = found[0] if found else None
        pictures = siblings(self.viewer.layers, layer, "Image")
        if image is None or not pictures or not same_place(image, pictures[0]):
            return None
        return image, pictures[0]

    def _describe(self, event: Any = None) -> None:
        overlay, layer = self.overlay, self.field.layer
        if layer is None:
            self.note.setText("Fit an image or open a field file first.")
        elif overlay is None or overlay.layer is None or not overlay.layer.visible:
            field = field_of(layer)
            self.note.setText(f"{len(field) if field is not None else 0:,} Gaussians, not shown.")
        else:
            self.note.setText(f"Showing {overlay.summary}.")


def _slider(low: float, high: float, value: float) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setSingleStep(0.05)
    slider.setDecimals(2)
    slider.setValue(value)
    return slider
