"""The settings of a fit as a form, made from the declarations of ``FitParams``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_medgs._util.settings import settings_of
from napari_medgs.plugin.fit.quality import QUALITIES, QualitySlider, quality_settings
from napari_medgs.plugin.preferences import preferences
from napari_medgs.plugin.widgets.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari_medgs.fitting import FitParams

    _Base = SettingsForm[FitParams]
else:
    _Base = SettingsForm


ADVANCED = (
    "gaussians",
    "quality",
    "time_limit",
    "iterations",
    "fold",
    "blend",
    "slice_axis",
    "holdout",
    "interpolate",
    "lambda_img",
    "lambda_seg",
    "loss",
    "backend",
    "threads",
    "seed",
    "empty_slices_unlabeled",
    "freeze_geometry",
)
# Texts that are short enough for a narrow dock.
OPTIONS: dict[str, dict[str, Any]] = {
    "gaussians": {"none_text": "automatic", "step": 1000},
    "quality": {"none_text": "no target"},
    "time_limit": {"none_text": "no limit", "step": 1},
    "iterations": {"step": 10},
    "fold": {
        "choices": {3: "3: cubic", 2: "2: quadratic", 1: "1: linear (3D Gaussians)", 0: "0: none"}
    },
    "blend": {
        "choices": {
            "normalized": "normalized",
            "sum": "sum",
            "alpha": "alpha, as in MedGS",
        }
    },
    "slice_axis": {"choices": {None: "coarsest", 0: "z", 1: "y", 2: "x"}},
    "holdout": {"none_text": "none"},
    "interpolate": {"choices": {None: "automatic", True: "always", False: "never"}},
    "loss": {"choices": {"l2": "squared", "l1": "absolute"}},
    "threads": {"none_text": "all"},
}


class FitForm(_Base):
    """A slider from fast to exact; every setting is under "Advanced".

    The defaults are those of the user's preferences.
    """

    def __init__(self) -> None:
        from napari_medgs.fitting import FitParams  # loads the engine: not when napari starts

        wanted = preferences()
        defaults = FitParams(threads=wanted.threads or None, **quality_settings(wanted.quality))
        if wanted.backend in settings_of(FitParams)["backend"].choices:
            defaults = replace(defaults, backend=wanted.backend)
        self.speed: QualitySlider | None = None
        super().__init__(defaults, (), ADVANCED, OPTIONS)
        self.speed = QualitySlider()
        self.layout().insertWidget(0, self.speed)
        self.speed.chosen.connect(self._choose)
        self.changed.connect(self._show_speed)
        self._show_speed()

    def load(self, params: FitParams) -> None:
        """Show settings; :attr:`changed` is not emitted."""
        super().load(params)
        self._show_speed()

    def _choose(self, index: int) -> None:
        for name, value in QUALITIES[index].settings.items():
            self.set_value(name, value)

    def _show_speed(self) -> None:
        if self.speed is not None:
            self.speed.show_settings({name: made.value for name, made in self.settings.items()})

    def show_backends(self, found: dict[str, tuple[bool, str]]) -> None:
        """Gray out the backends that cannot be used here, with the reason as tooltip.

        Parameters
        ----------
        found : dict of str to (bool, str)
            Name -> whether it works, and a remark.
        """
        reasons = {name: remark for name, (works, remark) in found.items() if not works}
        self.disable_choices("backend", reasons)
