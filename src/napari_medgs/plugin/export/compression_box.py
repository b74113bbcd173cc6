"""Size against quality of a compressed field: a slider whose effect is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_medgs.errors import MedGSError
from napari_medgs.plugin.export.compression_jobs import (
    STEPS,
    USUAL,
    CompressionPreview,
    PreviewCompression,
    field_to_compress,
    image_of,
)
from napari_medgs.plugin.layer_frame import geometry_kwargs
from napari_medgs.plugin.layer_metadata import (
    FIELD_KEY,
    FRAME_KEY,
    ROLE_KEY,
    SOURCE_KEY,
    frame_of_field,
)
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.elements import add_row, compact_form, hint
from napari_medgs.plugin.widgets.layers import LayerCombo, is_source_image
from napari_medgs.plugin.worker import Runner

WAIT_MS = 350  # after the slider has moved
DIFFERENCE_COLORS = "coolwarm"  # blue below, red above, pale where there is no difference


class CompressionBox(QWidget):
    """A slider, the image to tune to, and a preview.

    Parameters
    ----------
    owner : MedGSWidget
        Whose chosen layer is compressed.
    """

    def __init__(self, owner: MedGSWidget) -> None:
        super().__init__()
        self._owner, self._viewer = owner, owner.viewer
        self._layer: Any | None = None
        self.difference: Any | None = None
        self.runner = Runner(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(STEPS) - 1)
        self.slider.setPageStep(1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setValue(USUAL)
        tip = "Left: a smaller file. Right: nearer to the field."
        ends = QHBoxLayout()
        for text in ("smaller", "better"):
            end = QLabel(text)
            end.setToolTip(tip)
            ends.addWidget(end)
            if text == "smaller":
                self.slider.setToolTip(tip)
                ends.addWidget(self.slider, 1)
        layout.addLayout(ends)
        self.text = hint()
        layout.addWidget(self.text)
        form = compact_form()
        self.image = LayerCombo(owner, is_source_image, none="the field itself")
        tip = (
            "The image that was fitted: Gaussians are fine-tuned to it, which gives 0.5 to 1.2 dB "
            "more than tuning them to the field itself."
        )
        add_row(form, "Tune to", self.image, tip)
        self.shows = QCheckBox("Show the difference")
        self.shows.setChecked(True)
        self.shows.setToolTip(
            "Add a layer of the compressed rendering minus the image (or minus the field)."
        )
        form.addRow(self.shows)
        layout.addLayout(form)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(self._preview)
        self.slider.valueChanged.connect(lambda *_: self.update_soon())
        self.image.changed.connect(self.update_soon)
        self.shows.toggled.connect(self._show_layer)

    @property
    def position(self) -> int:
        """Where the slider is."""
        return int(self.slider.value())

    def set_layer(self, layer: Any | None) -> None:
        """Compress another layer's field; tune to its image if that is open."""
        if layer is self._layer:
            return
        self._layer = layer
        source = None if layer is None else layer.metadata.get(SOURCE_KEY)
        found = [x for x in self._viewer.layers if x.name == source and is_source_image(x)]
        self.image.choose(found[0] if found else None)
        self.update_soon()

    def update_soon(self) -> None:
        """Preview when the slider has come to rest; a preview under way is stopped."""
        self.runner.stop()
        if not self.isHidden() and self._layer is not None:
            self.text.setText("Measuring ...")
            self._timer.start()

    def showEvent(self, event: Any) -> None:
        """Preview when it is shown."""
        super().showEvent(event)
        self.update_soon()

    def shut_down(self) -> None:
        """Stop the preview without any further callback."""
        self._timer.stop()
        self.runner.shut_down()

    def job_volume(self) -> Any:
        """Return the image to tune to, or None.

        Raises
        ------
        MedGSError
            When it is not the image of the field.
        """
        return image_of(self.image.layer, field_to_compress(self._layer))

    def _preview(self) -> None:
        if self._owner.runner.busy:  # two at once would be slow
            return
        if self.runner.busy:
            self._timer.start()
            return
        try:
            field = field_to_compress(self._layer)
            job = PreviewCompression(field, self.position, self.job_volume())
        except MedGSError as error:
            self.text.setText(str(error))
            return
        self.runner.start(
            job,
            returned=self._show,
            errored=lambda error: self.text.setText(str(error)),
        )

    def _show(self, preview: CompressionPreview) -> None:
        self.text.setText(f"{preview.text}. Saving tunes longer.")
        layer = self._layer
        if layer is None or layer not in self._viewer.layers or not preview.difference.any():
            return
        values = frame_of_field(layer).to_layer(preview.difference)
        reach = float(np.percentile(np.abs(values), 99.5)) or 1.0
        if self.difference is not None and self.difference in self._viewer.layers:
            self.difference.data = values
            self.difference.visible = self.shows.isChecked()
            return
        if not self.shows.isChecked():
            return
        metadata = {k: v for k, v in layer.metadata.items() if k not in (FIELD_KEY, FRAME_KEY)}
        self.difference = self._viewer.add_image(
            values,
            name=f"{layer.name.split(' · ')[0]} · compression difference",
            colormap=DIFFERENCE_COLORS,
            contrast_limits=(-reach, reach),
            metadata={**metadata, ROLE_KEY: "difference"},
            **geometry_kwargs(layer),
        )

    def _show_layer(self, shown: bool) -> None:
        if self.difference is not None and self.difference in self._viewer.layers:
            self.difference.visible = shown
        elif shown:
            self.update_soon()
