"""The settings of a fit as a form, made from the declarations of ``FitParams``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.plugin.widgets.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari_medgs.fitting import FitParams

    _Base = SettingsForm[FitParams]
else:
    _Base = SettingsForm


MAIN = ("gaussians", "quality", "time_limit")
ADVANCED = (
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
            "normalized": "normalized (best)",
            "sum": "sum",
            "alpha": "alpha, as in MedGS",
        }
    },
    "slice_axis": {"choices": {None: "coarsest spacing", 0: "z", 1: "y", 2: "x"}},
    "holdout": {"none_text": "none"},
    "interpolate": {"choices": {None: "automatic", True: "always", False: "never"}},
    "loss": {"choices": {"l2": "squared (L2)", "l1": "absolute (L1)"}},
    "threads": {"none_text": "all"},
}


class FitForm(_Base):
    """Number of Gaussians, target quality and time in view; the rest under "Advanced"."""

    def __init__(self) -> None:
        from napari_medgs.fitting import FitParams  # loads the engine: not when napari starts

        super().__init__(FitParams(), MAIN, ADVANCED, OPTIONS)

    def show_backends(self, found: dict[str, tuple[bool, str]]) -> None:
        """Gray out the backends that cannot be used here, with the reason as tooltip.

        Parameters
        ----------
        found : dict of str to (bool, str)
            Name -> whether it works, and a remark.
        """
        reasons = {name: remark for name, (works, remark) in found.items() if not works}
        self.disable_choices("backend", reasons)
