"""How unlike an image is to those that a classifier was trained on.

A network gives probabilities for any image, noise and photographs too. A description of an image
in a few dozen numbers is compared with the training images' by its Mahalanobis distance; the
threshold is the distance that few of those images exceed when they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError

FALSE_ALARMS = 0.05
FOLDS = 5
COARSE = {2: 4, 3: 3}  # cells along each axis of the coarse image
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SCALES = (1, 2, 4)  # voxels over which differences are taken
FLOOR = 1e-3  # of intensities from 0 to 1: smaller differences are all alike
FEWEST = 20  # images from which a reference is made
LARGEST = 512


@dataclass(frozen=True)
class Reference:
    """The training images' descriptions, as a normal distribution with a threshold.

    Attributes
    ----------
    mean : (D,) ndarray
    whitening : (D, D) ndarray
        Maps differences from the mean to ones of unit variance.
    threshold : float
        Distance that the fraction ``false_alarms`` of such images exceed.
    false_alarms : float
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    threshold: float
    false_alarms: float = FALSE_ALARMS

    def novelty(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return the distance of images, divided by the threshold: above 1 is unlike.

        Parameters
        ----------
        images : (B, C, ...) ndarray
            From 0 to 1, as the classifier reads them.

        Returns
        -------
        (B,) ndarray
        """
        return self.novelty_of(describe(images))

    def novelty_of(self, described: NDArray[Any]) -> NDArray[np.float64]:
        """Return the same of descriptions (B, D) that :func:`describe` gave."""
        return _distances(np.asarray(described), self.mean, self.whitening) / self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values, to seven digits."""
        return {
            "mean": [float(f"{v:.7g}") for v in self.mean],
            "whitening": [[float(f"{v:.7g}") for v in row] for row in self.whitening],
            "threshold": float(self.threshold),
            "false_alarms": float(self.false_alarms),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Reference:
        """Return the reference that :meth:`to_dict` described.

        Raises
        ------
        FileError
            When the values describe none.
        """
        try:
            mean = np.asarray(record["mean"], np.float64)
            whitening = np.asarray(record["whitening"], np.float64)
            threshold, share = float(record["threshold"]), float(record["false_alarms"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError("The classifier's reference of training images is damaged.") from error
        good = (
            mean.ndim == 1
            and 0 < len(mean) <= LARGEST
            and whitening.shape == (len(mean), len(mean))
            and bool(np.isfinite(mean).all() and np.isfinite(whitening).all())
            and np.isfinite(threshold)
            and threshold > 0
            and 0 < share < 1
        )
        if not good:
            raise FileError("The classifier's reference of training images is damaged.")
        return cls(mean, whitening, threshold, share)


def describe(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return (B, D) descriptions of images: a coarse image, intensities, texture.

    Parameters
    ----------
    images : (B, C, ...) ndarray
        From 0 to 1.

    Returns
    -------
    (B, D) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> describe(np.zeros((2, 1, 28, 28))).shape
    (2, 32)
    """
    images = np.asarray(images, np.float64)
    count, channels, ndim = len(images), images.shape[1], images.ndim - 2
    axes = tuple(range(2, ndim + 2))
    parts = [_coarse(images, COARSE[ndim]).reshape(count, -1)]
    flat = images.reshape(count, channels, -1)
    parts.append(np.moveaxis(np.quantile(flat, QUANTILES, axis=2), 0, 2).reshape(count, -1))
    for scale in SCALES:
        for axis in axes:
            later = images[(slice(None),) * axis + (slice(scale, None),)]
            earlier = images[(slice(None),) * axis + (slice(None, -scale),)]
            size = np.abs(later - earlier).mean(axis=axes)
            parts.append(np.log(size + FLOOR))
    curved = images.copy()
    for axis in axes:
        curved -= (np.roll(images, 1, axis) + np.roll(images, -1, axis)) / (2 * ndim)
    inside = (slice(None), slice(None), *[slice(1, -1)] * ndim)
    parts.append(np.log(np.abs(curved[inside]).mean(axis=axes) + FLOOR))
    extreme = np.abs(curved[inside]).max(axis=axes)
    parts.append(np.log(extreme + FLOOR))
    parts.append(np.log(images.std(axis=axes) + FLOOR))
    parts.append(_spread(images))
    if channels > 1:
        # Colors that go together: differences between neighboring channels.
        between = np.abs(np.diff(images, axis=1)).mean(axis=axes)
        parts.append(np.log(between + FLOOR))
    return np.concatenate(parts, axis=1)


def _spread(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (B, D) logarithms of the widths of the bright parts, as fractions of the image."""
    mass = images.mean(axis=1)
    mass = mass / np.maximum(mass.sum(axis=tuple(range(1, mass.ndim)), keepdims=True), FLOOR)
    widths = []
    for axis in range(1, mass.ndim):
        others = tuple(a for a in range(1, mass.ndim) if a != axis)
        line = mass.sum(axis=others)
        place = np.linspace(0, 1, line.shape[1])
        middle = line @ place
        widths.append(np.sqrt(np.maximum(line @ place**2 - middle**2, 0)))
    return np.log(np.stack(widths, axis=1) + FLOOR)


def _coarse(images: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Return means over ``cells`` parts along every axis of (B, C, ...)."""
    for axis in range(2, images.ndim):
        edges = np.linspace(0, images.shape[axis], cells + 1).round().astype(int)[:-1]
        sizes = np.diff([*edges, images.shape[axis]])
        shape = [1] * images.ndim
        shape[axis] = cells
        images = np.add.reduceat(images, edges, axis=axis) / sizes.reshape(shape)
    return images


def make_reference(images: NDArray[Any], false_alarms: float = FALSE_ALARMS) -> Reference | None:
    """Return the reference of training images, None for too few or all equal ones.

    The threshold comes from images that were left out in turn (five folds).

    Parameters
    ----------
    images : (B, C, ...) ndarray
        Training and validation images from 0 to 1, as the classifier reads them.
    false_alarms : float
        Fraction of such images that may be called unlike.

    Returns
    -------
    Reference or None
    """
    return make_reference_of(describe(images), false_alarms)


def make_reference_of(
    described: NDArray[np.float64], false_alarms: float = FALSE_ALARMS
) -> Reference | None:
    """Return the reference of images (B, D) that are described already.

    Images of different sizes are described one by one; see :func:`make_reference`.
    """
    if len(described) < FEWEST or described.std(0).max() < FLOOR**2:  # too few, or all the same
        return None
    fold = np.random.default_rng(0).permutation(len(described)) % FOLDS
    distances = np.empty(len(described))
    for k in range(FOLDS):
        model = _normal(described[fold != k])
        distances[fold == k] = _distances(described[fold == k], *model)
    threshold = float(np.quantile(distances, 1 - false_alarms))
    return Reference(*_normal(described), threshold, false_alarms)


def _normal(described: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and whitening of descriptions; the covariance is that of Ledoit and Wolf."""
    from sklearn.covariance import LedoitWolf

    mean, scale = described.mean(0), described.std(0)
    scale = np.maximum(scale, max(float(scale.max()), FLOOR) * 1e-3)
    fitted = LedoitWolf(assume_centered=True).fit((described - mean) / scale)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    values = np.maximum(values, 1e-6 * max(float(values.max()), FLOOR))
    return mean, (vectors / np.sqrt(values)).T / scale


def _distances(
    described: NDArray[np.float64], mean: NDArray[np.float64], whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm((described - mean) @ whitening.T, axis=1))
