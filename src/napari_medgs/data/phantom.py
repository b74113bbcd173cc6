"""A head made of formulas: a small labeled volume for trying things without any file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles
from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError

LABEL_NAMES: dict[int, str] = {
    0: "background",
    1: "scalp",
    2: "skull",
    3: "cerebrospinal fluid",
    4: "gray matter",
    5: "white matter",
    6: "ventricles",
    7: "lesion",
}
# As a T1-weighted scan shows them, in arbitrary units.
INTENSITY = np.array([8.0, 210.0, 30.0, 55.0, 120.0, 175.0, 45.0, 85.0])
EXTENT_MM = (164.0, 216.0, 176.0)


@dataclass(frozen=True)
class Phantom:
    """A synthetic head.

    Attributes
    ----------
    image : (Z, Y, X) ndarray of float32
        Like a T1-weighted scan, with coil shading and Rician noise.
    labels : (Z, Y, X) ndarray of uint8
        See ``names``.
    grid : Grid
        Canonical axes, origin in the middle.
    names : dict of int to str
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    grid: Grid
    names: dict[int, str]


def make_phantom(
    spacing: float | tuple[float, float, float] = 2.0, noise: float = 4.0, seed: int = 0
) -> Phantom:
    """Make a head with scalp, skull, folded cortex, ventricles and a lesion.

    Parameters
    ----------
    spacing : float or (float, float, float)
        Millimeters between voxels along (z, y, x), 0.5 to 12.
    noise : float
        Standard deviation of the noise in intensity units; white matter has 175.
    seed : int
        Seed of the folds of the cortex, the lesion's place and the noise.

    Returns
    -------
    Phantom
        The same for the same arguments on every machine, up to rounding.

    Raises
    ------
    ParameterError
        When the spacing or the noise is out of range.

    Notes
    -----
    Every tissue is a set {distance < 0} of a smooth function in millimeters. Intensities are
    blended over the width of a voxel where tissues meet (partial volume).

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> head.image.shape == head.labels.shape == head.grid.shape
    True
    >>> head.names[5]
    'white matter'
    """
    sizes = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
    if not (np.isfinite(sizes).all() and sizes.min() >= 0.5 and sizes.max() <= 12):
        raise ParameterError(f"The phantom's spacing must be 0.5 to 12 mm, not {spacing}.")
    if not 0 <= noise <= 1000:
        raise ParameterError(f"The phantom's noise must be 0 to 1000, not {noise}.")
    rng = np.random.default_rng(seed)
    shape = np.maximum(4, np.round(np.array(EXTENT_MM) / sizes)).astype(int)
    # Millimeters superior, posterior and left of the middle.
    s, p, x = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, sizes)], indexing="ij"
    )
    layers = _distances(s, p, x, rng)
    blur = float(sizes.mean()) / 2
    labels = np.zeros(tuple(shape), dtype=np.uint8)
    image = np.full(tuple(shape), INTENSITY[0])
    for value, distance in layers:
        labels[distance < 0] = value
        share = 1 / (1 + np.exp(np.clip(2 * distance / blur, -30, 30)))
        image += share * (INTENSITY[value] - image)
    shading = 1 + 0.06 * np.sin(x / 80 + 0.7) + 0.05 * np.cos(p / 90) - 0.04 * s / 82
    image *= shading
    if noise:
        image = np.hypot(
            image + noise * rng.standard_normal(image.shape),
            noise * rng.standard_normal(image.shape),
        )
    affine = np.zeros((4, 4))
    affine[:3, :3] = np.diag(sizes) @ np.eye(3)
    affine[:3, 3] = -(shape - 1) / 2 * sizes
    affine[3, 3] = 1
    to_ras = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    grid = Grid((int(shape[0]), int(shape[1]), int(shape[2])), to_ras @ affine)
    return Phantom(image.astype(np.float32), labels, grid, dict(LABEL_NAMES))


def _ellipsoid(
    s: Doubles,
    p: Doubles,
    x: Doubles,
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> Doubles:
    """Return about the signed distance in mm to an ellipsoid; negative inside."""
    level = np.sqrt(
        ((s - center[0]) / radii[0]) ** 2
        + ((p - center[1]) / radii[1]) ** 2
        + ((x - center[2]) / radii[2]) ** 2
    )
    return (level - 1) * min(radii)


def _distances(
    s: Doubles, p: Doubles, x: Doubles, rng: np.random.Generator
) -> list[tuple[int, Doubles]]:
    """Return (label, signed distance) of the tissues from outside to inside."""
    taper = 1 - 0.10 * np.clip(-p / 100, -1, 1)  # the forehead is narrower than the back
    xt = x / taper
    head = _ellipsoid(s, p, xt, (1, 0, 0), (79, 104, 82))
    brain = _ellipsoid(s, p, xt, (3, 1, 0), (66, 90, 68))
    # Sulci run where a sum of waves with random directions and phases crosses zero.
    waves = np.zeros_like(head)
    for _ in range(12):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(0.15, 0.27) / np.linalg.norm(direction)
        phase = rng.uniform(0, 2 * np.pi)
        waves += np.sin(direction[0] * s + direction[1] * p + direction[2] * x + phase)
    crossing = np.abs(waves) / np.sqrt(6)
    fissure = 2.0 - np.abs(x) - np.clip(18 - s, 0, 60) * 0.35  # between the hemispheres
    gray = np.maximum(brain + 1.0 + 9 * np.exp(-((crossing / 0.13) ** 2)), fissure)
    white = np.maximum(brain + 6.0 + 11 * np.exp(-((crossing / 0.55) ** 2)), fissure + 3.5)
    nuclei = np.minimum(
        _ellipsoid(s, p, np.abs(x), (-2, 6, 14), (9, 14, 8)),
        _ellipsoid(s, p, np.abs(x), (2, -14, 17), (9, 12, 5)),
    )
    horn = np.abs(x) - 8 - 0.12 * np.abs(p)
    ventricles = np.maximum(
        _ellipsoid(s - 0.0016 * p**2, p, horn, (12, 2, 0), (10, 36, 6.5)), -np.abs(x) + 0.8
    )
    third = _ellipsoid(s, p, x, (-2, 4, 0), (11, 13, 2.0))
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    place = (rng.uniform(16, 28), rng.uniform(-30, 30), side * rng.uniform(26, 34))
    lesion = _ellipsoid(s, p, x, place, (8.5, 11.0, 7.5)) + 0.5 * waves
    return [
        (1, head),
        (2, brain - 9 + 0.8 * np.sin(s / 9)),
        (3, brain - 2.5),
        (4, gray),
        (5, white),
        (4, np.maximum(nuclei, gray)),
        (6, np.minimum(ventricles, third)),
        (7, np.maximum(lesion, gray)),
    ]
