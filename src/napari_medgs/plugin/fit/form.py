"""The settings of a fit as a form; its defaults are those of the core."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_medgs.plugin.widgets.base import add_row, compact_form

if TYPE_CHECKING:
    from napari_medgs.fitting import FitParams

FOLDS = {
    3: "cubic: bends twice",
    2: "quadratic: bends",
    1: "linear: plain 3D Gaussians",
    0: "none: upright",
}
BLENDS = {
    "normalized": "normalized (best)",
    "sum": "sum",
    "alpha": "alpha, like MedGS",
}
BACKENDS = ("auto", "cpu", "cuda", "gsplat", "reference")
BETWEEN = {None: "where slices lie far apart", True: "always", False: "never"}
AXES = {None: "coarsest", 0: "z", 1: "y", 2: "x"}


def spin(low: int, high: int, value: int | None, special: str = "", step: int = 1) -> QSpinBox:
    """Return an integer box; its lowest value stands for None where ``special`` names it."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setGroupSeparatorShown(True)
    if special:
        box.setSpecialValueText(special)
    box.setValue(low if value is None else value)
    return box


def real(
    low: float, high: float, value: float | None, step: float, suffix: str = "", special: str = ""
) -> QDoubleSpinBox:
    """Return a box for real numbers; its lowest value stands for None, see :func:`spin`."""
    box = QDoubleSpinBox()
    box.setDecimals(2 if step < 0.1 else 1)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setSuffix(suffix)
    if special:
        box.setSpecialValueText(special)
    box.setValue(low if value is None else value)
    return box


def choice(items: dict[Any, str], value: Any) -> QComboBox:
    """Return a combo box of values with their descriptions."""
    box = QComboBox()
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    for key, text in items.items():
        box.addItem(text, key)
    box.setCurrentIndex(list(items).index(value))
    return box


class FitForm(QWidget):
    """Number of Gaussians, quality and time in view; the rest under "Advanced"."""

    advanced_opened = Signal()

    def __init__(self) -> None:
        from napari_medgs.fitting import FitParams  # loads the engine: not when napari starts

        super().__init__()
        self.defaults = FitParams()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        form = compact_form()
        layout.addLayout(form)
        self._main(form)
        self.advanced = QCollapsible("Advanced")
        self.advanced.setDuration(120)
        inner = QWidget()
        more = compact_form()
        inner.setLayout(more)
        self._advanced(more)
        self.advanced.addWidget(inner)
        layout.addWidget(self.advanced)
        self.advanced.toggled.connect(self._on_toggle)

    def _on_toggle(self, opened: bool) -> None:
        if opened:
            self.advanced_opened.emit()

    def _main(self, form: QFormLayout) -> None:
        self.gaussians = spin(0, 20_000_000, self.defaults.gaussians, "automatic", 1000)
        add_row(
            form,
            "Gaussians",
            self.gaussians,
            "How many Gaussians describe the image. Automatic: by the size of what is in it.",
        )
        self.quality = real(4, 100, self.defaults.quality, 0.5, " dB", "as it comes")
        add_row(
            form,
            "Quality",
            self.quality,
            "Stop as soon as the image is described this well (PSNR); Gaussians are added until "
            "it is. 38 dB look the same to most eyes.",
        )
        self.time_limit = real(0, 86_400, self.defaults.time_limit, 1, " s", "no limit")
        add_row(form, "Time", self.time_limit, "Stop after this many seconds at the latest.")

    def _advanced(self, form: QFormLayout) -> None:
        self.iterations = spin(1, 100_000, self.defaults.iterations, step=10)
        add_row(form, "Iterations", self.iterations, "Optimiser steps; each sees every voxel.")
        self.fold = choice(FOLDS, self.defaults.fold)
        add_row(
            form, "Fold", self.fold, "How Gaussians may bend from slice to slice (degree 3 to 0)."
        )
        self.blend = choice(BLENDS, self.defaults.blend)
        add_row(form, "Blend", self.blend, "How overlapping Gaussians combine.")
        self.slice_axis = choice(AXES, self.defaults.slice_axis)
        add_row(form, "Slice axis", self.slice_axis, "The axis along which Gaussians fold.")
        self.holdout = spin(1, 100, self.defaults.holdout, "all")
        self.holdout.setPrefix("every ")
        add_row(
            form,
            "Slices",
            self.holdout,
            "Fit only every K-th slice and report how well the slices between are predicted.",
        )
        self.interpolate = choice(BETWEEN, self.defaults.interpolate)
        add_row(
            form,
            "Between",
            self.interpolate,
            "Fit what must lie between the slices too, along the motion of the structures.",
        )
        self.lambda_img = real(0, 1000, self.defaults.lambda_img, 0.1)
        add_row(form, "λ image", self.lambda_img, "Weight of the image's errors.")
        self.lambda_seg = real(0, 1000, self.defaults.lambda_seg, 0.1)
        add_row(form, "λ mask", self.lambda_seg, "Weight of the mask's errors, if any.")
        self.loss = choice({"l2": "squared", "l1": "absolute"}, self.defaults.loss)
        add_row(form, "Errors", self.loss, "Squared or absolute image errors.")
        self.backend = choice({name: name for name in BACKENDS}, self.defaults.backend)
        add_row(form, "Device", self.backend, "What computes. auto: a CUDA GPU, else the CPU.")
        self.threads = spin(0, 1024, self.defaults.threads, "all")
        add_row(form, "CPU threads", self.threads, "Threads of the CPU to use.")
        self.seed = spin(0, 2**31 - 1, self.defaults.seed)
        self.seed.setGroupSeparatorShown(False)
        add_row(form, "Seed", self.seed, "Seed of all random choices.")
        self.empty_unlabelled = QCheckBox("empty slices of the mask are unlabelled")
        self.empty_unlabelled.setChecked(self.defaults.empty_slices_unlabeled)
        self.empty_unlabelled.setToolTip("For a mask that was painted on some slices only.")
        form.addRow("", self.empty_unlabelled)
        self.freeze = QCheckBox("keep the Gaussians, fit the mask only")
        self.freeze.setChecked(self.defaults.freeze_geometry)
        self.freeze.setToolTip(
            "Start from an earlier result and learn only which class its Gaussians have."
        )
        form.addRow("", self.freeze)

    def params(self) -> FitParams:
        """Return the settings.

        Raises
        ------
        ParameterError
            When they contradict each other.
        """
        return replace(
            self.defaults,
            gaussians=self.gaussians.value() or None,
            quality=_optional(self.quality),
            time_limit=_optional(self.time_limit),
            iterations=self.iterations.value(),
            fold=self.fold.currentData(),
            blend=self.blend.currentData(),
            slice_axis=self.slice_axis.currentData(),
            holdout=self.holdout.value() if self.holdout.value() > 1 else None,
            lambda_img=self.lambda_img.value(),
            lambda_seg=self.lambda_seg.value(),
            loss=self.loss.currentData(),
            backend=self.backend.currentData(),
            threads=self.threads.value() or None,
            seed=self.seed.value(),
            freeze_geometry=self.freeze.isChecked(),
            interpolate=self.interpolate.currentData(),
            empty_slices_unlabeled=self.empty_unlabelled.isChecked(),
        )

    def show_backends(self, found: dict[str, tuple[bool, str]]) -> None:
        """Grey out the devices that cannot be used here and say why."""
        model = self.backend.model()
        for k, name in enumerate(BACKENDS):
            works, remark = found.get(name, (name == "auto", "not part of this version"))
            item = model.item(k)
            item.setEnabled(works or name == "auto")
            item.setToolTip(remark)


def _optional(box: QDoubleSpinBox) -> float | None:
    return box.value() if box.value() > box.minimum() else None
