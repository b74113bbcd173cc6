"""Largest components: stray voxels far from an organ go where cross-validation says so.

A network now and then finds a few voxels of a class far away from it. Most organs are one piece,
so that keeping only the largest connected component of such a class mends the mask; lesions and
pairs of organs are not. As in nnU-Net [1]_, cases that a network has not seen decide it for every
class; in their masks, too, it must be one piece, as a poor network may gain by it where it is not.

.. [1] Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep
   learning-based biomedical image segmentation", Nature Methods 18, 2021.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.learning.card import SegmenterCard

SHARE = 0.6
"""Weight of the new class in the probabilities of a voxel whose class was changed."""
LEAST_CASES = 4
"""Cases below which nothing is decided."""
LEAST_IN_ONE = 0.98
"""Part of a class that its largest component holds in every mask, where it counts as one piece."""


def keep_largest(
    labels: NDArray[Any], values: Collection[int], *, flat: bool = False
) -> NDArray[Any]:
    """Return labels without the smaller components of some classes.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray
    values : collection of int
        Label values of which only the largest component stays; the rest becomes 0.
    flat : bool
        Look at every slice for itself, as networks for slices do.

    Returns
    -------
    (Z, Y, X) ndarray
        The same array where there is nothing to remove. Voxels that share a face, an edge or a
        corner are connected.

    Examples
    --------
    >>> import numpy as np
    >>> keep_largest(np.array([[[1, 1, 0, 1, 0, 2]]]), {1}).tolist()
    [[[1, 1, 0, 0, 0, 2]]]
    """
    out = labels
    for value in values:
        for z in range(len(labels)) if flat else (None,):
            part = labels if z is None else labels[z : z + 1]
            stray = _stray(part == value)
            if stray is None:
                continue
            if out is labels:
                out = labels.copy()
            (out if z is None else out[z : z + 1])[stray] = 0
    return out


def _stray(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the voxels outside of the largest component; None where there are none."""
    from scipy.ndimage import label

    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(there):
            return None
        spans.append(slice(int(there[0]), int(there[-1]) + 1))
    box = tuple(spans)
    parts, count = label(mask[box], np.ones((3,) * mask.ndim))
    if count < 2:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    stray = np.zeros_like(mask)
    stray[box] = (parts > 0) & (parts != sizes.argmax())
    return stray


def move_probabilities(
    probabilities: Floats, changed: NDArray[np.bool_], classes: NDArray[np.integer[Any]]
) -> None:
    """Make other classes the most likely ones of some voxels, in place.

    Parameters
    ----------
    probabilities : (K, Z, Y, X) ndarray
    changed : (Z, Y, X) ndarray of bool
    classes : (N,) ndarray of int
        Their new classes, by place in ``probabilities``.
    """
    there = probabilities[:, changed] * (1 - SHARE)
    there[classes, np.arange(there.shape[1])] += SHARE
    probabilities[:, changed] = there


def decide_components(
    scores: Mapping[str, Sequence[tuple[float, float, float]]],
) -> dict[str, dict[str, Any]]:
    """Return for every class what its largest component alone was worth.

    Parameters
    ----------
    scores : mapping of str to sequence of (float, float, float)
        By class the Dice without and with it, and the part of the true mask in its largest
        component, for every case that a network had not seen.

    Returns
    -------
    dict
        By class ``cases``, the mean ``difference``, ``better`` and ``worse``, the numbers of
        cases that gained and lost, and ``used``: where the mean is better, and 98 % of every
        true mask are one piece. Empty with fewer than four cases.

    Examples
    --------
    >>> seen = [(0.8, 0.82, 1.0), (0.8, 0.8, 1.0), (0.7, 0.7, 0.99), (0.9, 0.9, 1.0)]
    >>> decide_components({"liver": seen})["liver"]["used"]
    True
    """
    found = {}
    for name, rows in scores.items():
        if len(rows) < LEAST_CASES:
            continue
        gain = np.array([after - before for before, after, _ in rows])
        whole = min(part for _, _, part in rows) >= LEAST_IN_ONE
        found[name] = {
            "cases": len(gain),
            "difference": float(gain.mean()),
            "better": int((gain > 0).sum()),
            "worse": int((gain < 0).sum()),
            "used": bool(gain.mean() > 0 and whole),
        }
    return found


def single_classes(card: SegmenterCard) -> tuple[int, ...]:
    """Return the label values of which a model keeps the largest component only."""
    found: Any = card.trust.get("components")
    if not isinstance(found, dict):
        return ()
    used = {name for name, entry in found.items() if isinstance(entry, dict)
            and entry.get("used") is True}  # fmt: skip
    return tuple(value for value, name in card.names.items() if name in used)


def describe_components(card: SegmenterCard) -> str:
    """Return in words of which classes the largest component is kept; empty for none."""
    found, values = card.trust.get("components"), single_classes(card)
    texts = []
    for value in values:
        name = card.names[value]
        try:
            entry: Any = found[name]  # type: ignore[index]
            texts.append(
                f"{name} ({float(entry['difference']):+.3f} Dice; better in "
                f"{int(entry['better'])}, worse in {int(entry['worse'])} of {int(entry['cases'])})"
            )
        except (KeyError, TypeError, ValueError):
            texts.append(name)
    return ", ".join(texts)
