"""The Poincare ball of curvature -1: distances, Moebius translation, and maps from flat space."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Doubles

EDGE = 1e-12  # least 1 - |x|^2: doubles tell points apart up to a distance of about 28 from 0


def _room(points: Doubles) -> Doubles:
    """Return 1 - |x|^2, kept above 0."""
    return np.maximum(1 - (points**2).sum(axis=-1), EDGE)


def from_flat(vectors: Doubles) -> Doubles:
    """Return the points of the ball at distance |v| from the origin, in the direction of v.

    The exponential map at the origin, of a metric in which distances near it are twice the flat
    ones.

    Parameters
    ----------
    vectors : (..., D) ndarray of float64

    Returns
    -------
    (..., D) ndarray of float64
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    safe = np.maximum(length, 1e-12)
    points: Doubles = np.where(length > 1e-12, np.tanh(safe / 2) / safe, 0.5) * vectors
    return points


def to_flat(points: Doubles) -> Doubles:
    """Return the vectors that :func:`from_flat` takes to the points."""
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    safe = np.clip(length, 1e-12, 1 - EDGE / 2)
    vectors: Doubles = np.where(length > 1e-12, 2 * np.arctanh(safe) / safe, 2) * points
    return vectors


def distance(a: Doubles, b: Doubles) -> Doubles:
    """Return the hyperbolic distances of points (..., D), broadcast against each other.

    Examples
    --------
    >>> import numpy as np
    >>> float(distance(np.zeros(2), np.array([np.tanh(1.5), 0.0])).round(6))
    3.0
    """
    squared = ((a - b) ** 2).sum(axis=-1) / (_room(a) * _room(b))
    found: Doubles = 2 * np.arcsinh(np.sqrt(squared))
    return found


def translate(points: Doubles, center: Doubles) -> Doubles:
    """Move the ball so that a point comes to the origin; distances stay as they are.

    The Moebius sum of -center and the points.

    Parameters
    ----------
    points : (..., D) ndarray of float64
    center : (D,) ndarray of float64
        Inside of the ball.

    Returns
    -------
    (..., D) ndarray of float64

    Examples
    --------
    >>> import numpy as np
    >>> translate(np.array([[0.5, 0.0]]), np.array([0.5, 0.0])).tolist()
    [[0.0, 0.0]]
    """
    a = -np.asarray(center, np.float64)
    x = np.asarray(points, np.float64)
    product = (x * a).sum(axis=-1, keepdims=True)
    of_x, of_a = (x**2).sum(axis=-1, keepdims=True), float(a @ a)
    moved: Doubles = ((1 + 2 * product + of_x) * a + (1 - of_a) * x) / (
        1 + 2 * product + of_a * of_x
    )
    length = np.linalg.norm(moved, axis=-1, keepdims=True)
    limit = np.sqrt(1 - EDGE)
    return np.where(length > limit, moved * (limit / np.maximum(length, 1e-12)), moved)


def geodesics(first: Doubles, second: Doubles, steps: int = 12) -> Doubles:
    """Return the shortest lines between pairs of points, (P, steps, D).

    Parameters
    ----------
    first, second : (P, D) ndarray of float64
    steps : int
        Points on every line, its ends included.

    Returns
    -------
    ndarray of float64
    """
    along = np.linspace(0, 1, steps)[:, None]
    lines = np.empty((len(first), steps, first.shape[1]))
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        far = to_flat(translate(b, a))  # through the origin lines are straight
        lines[k] = translate(from_flat(along * far), -a)
    return lines


def drag(points: Doubles, start: Doubles, end: Doubles) -> Doubles:
    """Move the ball so that what is at ``start`` comes to ``end``."""
    return translate(translate(points, start), -np.asarray(end))


def pull_back(vectors: Doubles, gradient: Doubles) -> Doubles:
    """Return derivatives with respect to flat vectors, given those to their points."""
    length = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    unit = vectors / length
    along = (gradient * unit).sum(axis=-1, keepdims=True) * unit
    radial = 0.5 / np.cosh(np.minimum(length, 600) / 2) ** 2
    pulled: Doubles = radial * along + np.tanh(length / 2) / length * (gradient - along)
    return pulled
