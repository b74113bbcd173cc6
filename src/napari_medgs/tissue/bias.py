"""Smooth multiplicative fields of intensity, as Legendre polynomials."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from napari_medgs._typing import Doubles


@dataclass(frozen=True)
class LegendreBasis:
    """Products of Legendre polynomials over a box, up to a total degree, without the constant.

    Attributes
    ----------
    low, high : (3,) ndarray of float64
        First and last voxel of the box along every axis. Beyond it, its border counts.
    powers : tuple of (int, int, int)
        Degrees along the axes, one triple a term. Axes of a single voxel have degree 0.

    Examples
    --------
    >>> basis = LegendreBasis.over([0, 0, 0], [0, 4, 4], degree=2)
    >>> basis.powers
    ((0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 2, 0))
    >>> basis.at([[0, 4, 4]]).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    low: Doubles
    high: Doubles
    powers: tuple[tuple[int, int, int], ...]

    @classmethod
    def over(cls, low: object, high: object, degree: int) -> LegendreBasis:
        """Make the basis of a box.

        Parameters
        ----------
        low, high : three numbers
            First and last voxel along every axis.
        degree : int
            Largest sum of the degrees along the axes.

        Returns
        -------
        LegendreBasis
        """
        first, last = np.asarray(low, np.float64), np.asarray(high, np.float64)
        ranges = [range(degree + 1 if b > a else 1) for a, b in zip(first, last, strict=True)]
        powers = tuple((p[0], p[1], p[2]) for p in product(*ranges) if 0 < sum(p) <= degree)
        return cls(first, last, powers)

    def __len__(self) -> int:
        return len(self.powers)

    def _scaled(self, values: Doubles, axis: int) -> Doubles:
        middle = (self.high[axis] + self.low[axis]) / 2
        half = max((self.high[axis] - self.low[axis]) / 2, 0.5)
        return np.clip((values - middle) / half, -1, 1)

    def _polynomials(self, values: Doubles, axis: int) -> Doubles:
        """Return all needed polynomials of one coordinate, (degree + 1, ...)."""
        degree = max((p[axis] for p in self.powers), default=0)
        terms = legendre.legvander(self._scaled(values, axis), degree)
        return np.moveaxis(np.asarray(terms, np.float64), -1, 0)

    def at(self, places: object) -> Doubles:
        """Return all terms at places (N, 3), as (N, T)."""
        points = np.asarray(places, np.float64)
        along = [self._polynomials(points[:, a], a) for a in range(3)]
        out = np.ones((len(points), len(self.powers)))
        for t, powers in enumerate(self.powers):
            for axis, power in enumerate(powers):
                out[:, t] *= along[axis][power]
        return out

    def field(self, coefficients: Doubles, shape: tuple[int, int, int], index: int) -> Doubles:
        """Return 1 + the polynomials with coefficients (C, T) in slice ``index``, (C, Y, X)."""
        z = self._polynomials(np.array([float(index)]), 0)[:, 0]
        y = self._polynomials(np.arange(shape[1], dtype=np.float64), 1)
        x = self._polynomials(np.arange(shape[2], dtype=np.float64), 2)
        mix = np.zeros((len(coefficients), len(y), len(x)))
        for t, (a, b, c) in enumerate(self.powers):
            mix[:, b, c] += coefficients[:, t] * z[a]
        rows: NDArray[np.float64] = np.einsum("cij,iy,jx->cyx", mix, y, x, optimize=True)
        return 1 + rows
