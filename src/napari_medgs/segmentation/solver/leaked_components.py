"""Components of a class of many (lesions) that leaked into what surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.term_params import ScatterParams
from napari_medgs.segmentation.terms.annotated_components import margins
from napari_medgs.segmentation.terms.scattered import Scattered

LEAST_UNLIKE = 1 / 3  # of a component that leaked: true ones have rims that look like others, too


def trim_leaked_components(
    labels: NDArray[np.uint8],
    scattered: Scattered,
    markers: Markers,
    log_probability: Callable[[NDArray[np.int32]], Floats],
    params: ScatterParams,
) -> None:
    """Keep only what looks like its class in components that are too long for it, in place.

    Where the look of a class is told apart from all else, a component much longer than every
    annotated one is a leak, or several components with a leak between them, if much of it looks
    unlike the class. That part becomes background.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
        Class indices, slice-first.
    scattered : Scattered
    markers : Markers
        Their voxels stay.
    log_probability : callable
        Of voxels (P, 3): log-probabilities (P, K) of the classes by appearance.
    params : ScatterParams
    """
    from scipy.ndimage import find_objects, label

    for k in sorted(scattered.trusted):
        parts, _ = label(labels == k)
        longest = params.max_size * scattered.diameters[k]
        drawn = markers.voxels[markers.classes == k]
        for i, box in enumerate(find_objects(parts), 1):
            sides = np.array([s.stop - s.start for s in box]) * scattered.relative_spacing
            if sides.max() <= longest:
                continue
            corner = np.array([s.start for s in box], np.int32)
            own = parts[box] == i
            voxels: NDArray[Any] = np.argwhere(own).astype(np.int32)
            unlike = margins(log_probability(voxels + corner), k) <= params.min_margin
            if unlike.mean() < LEAST_UNLIKE:
                continue
            drop = np.zeros(own.shape, np.bool_)
            drop[tuple(voxels[unlike].T)] = True
            place = drawn - corner
            drop[tuple(place[((place >= 0) & (place < own.shape)).all(axis=1)].T)] = False
            labels[box][drop] = 0
