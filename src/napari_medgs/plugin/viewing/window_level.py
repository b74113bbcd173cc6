"""Window and level of image layers: presets of CT, and steps of a drag. No Qt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 40_000
FAT, BONE = -50.0, 100.0  # HU: a scan of a body holds what is darker, and what is brighter
LOWEST, HIGHEST = -4100.0, 32_000.0  # HU, with padding and metal
NARROWEST = 1e-6  # of the range of a layer's values
PER_PIXEL = 1 / 300  # of the window, for a drag of one pixel


@dataclass(frozen=True)
class Window:
    """The values that are shown from black to white.

    Attributes
    ----------
    level : float
        The middle, in the image's units.
    width : float
        From black to white.
    """

    level: float
    width: float

    @property
    def limits(self) -> tuple[float, float]:
        """The values of black and of white."""
        return self.level - self.width / 2, self.level + self.width / 2

    @classmethod
    def of(cls, layer: Any) -> Window:
        """Return the window of an image layer."""
        low, high = (float(v) for v in layer.contrast_limits)
        return cls((low + high) / 2, high - low)

    def dragged(self, right: float, up: float) -> Window:
        """Return the window after a drag: to the right it widens, upwards the image brightens.

        Parameters
        ----------
        right, up : float
            Pixels of the screen.
        """
        width = self.width * np.exp(right * PER_PIXEL)
        return Window(self.level - up * PER_PIXEL * self.width, float(width))


PRESETS = {
    "Abdomen": Window(40, 400),
    "Lung": Window(-600, 1500),
    "Bone": Window(400, 1800),
    "Brain": Window(40, 80),
    "Mediastinum": Window(50, 350),
}
"""Level and width in Hounsfield units, as radiologists use them."""


def sample(layer: Any) -> NDArray[Any]:
    """Return some finite values of an image layer, spread over all of it.

    Of a layer that is read when shown, only the coarsest level, or what is shown, is looked at.
    """
    array = layer.data[-1] if layer.multiscale else layer.data
    if not layer.multiscale and not isinstance(array, np.ndarray):
        values = np.asarray(layer.contrast_limits_range, float)
    else:
        step = max(1, int(np.ceil((array.size / SAMPLES) ** (1 / max(array.ndim, 1)))))
        values = np.asarray(array[(slice(None, None, step),) * array.ndim]).ravel()
    if values.dtype.kind not in "iuf":
        return np.zeros(0)
    finite: NDArray[Any] = values[np.isfinite(values)]
    return finite


def is_hounsfield(layer: Any) -> bool:
    """Tell whether the values of a layer are like Hounsfield units: from air or fat to bone.

    Parameters
    ----------
    layer : napari.layers.Layer
    """
    if type(layer).__name__ != "Image" or layer.rgb:
        return False
    values = sample(layer)
    if not len(values):
        return False
    low, high = float(values.min()), float(values.max())
    dark = float(np.percentile(values, 2))
    return low >= LOWEST and high <= HIGHEST and dark <= FAT and high >= BONE


def set_window(layers: Iterable[Any], window: Window) -> None:
    """Show layers with one window."""
    low, high = window.limits
    for layer in layers:
        layer.contrast_limits = (low, high)


class WindowDrag:
    """One drag of the mouse, which changes the windows of image layers.

    Layers in Hounsfield units share one window; each other one keeps its own.

    Parameters
    ----------
    layers : sequence of napari.layers.Image
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        self._layers = list(layers)
        shared: Window | None = None
        self._before: list[Window] = []
        for layer in self._layers:
            window = Window.of(layer)
            if is_hounsfield(layer):
                shared = shared or window
                window = shared
            self._before.append(window)

    def move(self, right: float, up: float) -> None:
        """Show what a drag of so many pixels since its begin stands for."""
        for layer, before in zip(self._layers, self._before, strict=True):
            window = before.dragged(right, up)
            least = NARROWEST * max(float(np.ptp(layer.contrast_limits_range)), 1e-30)
            set_window([layer], Window(window.level, max(window.width, least)))
