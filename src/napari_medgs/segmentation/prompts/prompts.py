"""Prompts: strokes, fully labeled slices, points, boxes, an initial mask, locked classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.settings import check, setting
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.prompts.kinds import (
    LABELS,
    as_place,
    check_entries,
    check_label,
    check_locked,
    check_slices,
    is_whole,
)

MOST_CLASSES = 250
PRIOR_SCALE = 255  # of probabilities that are stored as bytes
PRIOR_TOLERANCE = 0.02  # of the sum of its probabilities: half precision, rounded files
Triple = tuple[float, float, float]


def _as_tuples(prompt: object, *names: str) -> None:
    """Turn places that were given as arrays into tuples, which can be compared."""
    for name in names:
        place = getattr(prompt, name)
        if isinstance(place, np.ndarray):
            object.__setattr__(prompt, name, tuple(place.tolist()))


@dataclass(frozen=True)
class Point:
    """A click on a place of a class, or on one that is not of that class.

    Attributes
    ----------
    position : (z, y, x)
        In voxels of the canonical grid.
    label : int
        The class, or the prompts' background value (or 0) for background.
    positive : bool
        False: the place is not of this class; it gets the next best one.
    radius : float
        Radius of the marked ball, in voxels of the finest axis.

    Examples
    --------
    >>> Point((8.0, 14.0, 20.0), label=1, radius=2.0).positive
    True
    """

    position: Triple
    label: int
    positive: bool = True
    radius: float = setting(1.0, low=0, high=10_000, unit="voxels")

    def __post_init__(self) -> None:
        _as_tuples(self, "position")
        check(self)


@dataclass(frozen=True)
class Box:
    """A bounding box of a class.

    Attributes
    ----------
    start, stop : (z, y, x)
        First voxel and one past the last, on the canonical grid.
    label : int
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    label: int

    def __post_init__(self) -> None:
        _as_tuples(self, "start", "stop")


@dataclass(frozen=True)
class Prompts:
    """All markers and constraints of a segmentation.

    Where they contradict each other, points win over strokes, and strokes over the initial mask.

    Attributes
    ----------
    initial : (Z, Y, X) ndarray of int, optional
        A mask to refine, 0 is background. Its voxels keep their labels, except near prompts
        that contradict it (the more so the deeper they lie in the wrong label) and within
        ``initial_margin``.
    prior : (K, Z, Y, X) ndarray of float, or of uint8 in 255ths, optional
        Probability of every class instead of ``initial``, 0 is background: the most likely
        class is the initial mask, and where none is likely its voxels may change, too.
    labels : (Z, Y, X) ndarray of int, optional
        Strokes and fully labeled slices.
    unlabeled : int
        The value in ``labels`` that carries no label.
    background : int, optional
        The value in ``labels`` that means background. By default 0, unless that is
        ``unlabeled``.
    fully_labeled : tuple of (axis, index)
        Slices in which unlabeled voxels are background. Slices without any unlabeled voxel
        need not be named.
    points : tuple of Point
    boxes : tuple of Box
        All of a boxed class lies within its boxes.
    initial_margin : float
        Voxels of the initial mask nearer than this to another label may change, in voxels of
        the finest axis; 1 or less: none. Use more than 1 only for masks that are too small
        or too large and whose borders are clear edges in the image: it can make a good mask of a
        structure with little contrast worse.
    locked : frozenset of int
        Classes that keep the voxels that they have in ``result``.
    result : (Z, Y, X) ndarray of int, optional
        The label image that ``locked`` refers to.

    Examples
    --------
    >>> import numpy as np
    >>> strokes = np.zeros((4, 5, 6), int)
    >>> strokes[2, 1, 1:3], strokes[2, 4, 1:3] = 1, 9
    >>> prompts = Prompts(labels=strokes, background=9, points=(Point((2.0, 2.0, 2.0), 1),))
    >>> prompts.check((4, 5, 6))
    >>> prompts.background_value
    9
    """

    labels: NDArray[Any] | None = None
    unlabeled: int = 0
    background: int | None = None
    fully_labeled: tuple[tuple[int, int], ...] = ()
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    initial: NDArray[Any] | None = None
    initial_margin: float = setting(1.0, low=0, high=1e6, unit="voxels")
    locked: frozenset[int] = frozenset()
    result: NDArray[Any] | None = None
    prior: NDArray[Any] | None = None

    @property
    def background_value(self) -> int | None:
        """The value of background strokes in ``labels``, or None where there is none."""
        if self.background is not None:
            return self.background
        return 0 if self.unlabeled != 0 else None

    def with_labels(self, labels: NDArray[Any]) -> Prompts:
        """Return the same prompts with other strokes.

        Parameters
        ----------
        labels : (Z, Y, X) ndarray of int

        Returns
        -------
        Prompts
        """
        return replace(self, labels=labels)

    def is_background(self, label: int) -> bool:
        """Return whether a label means background."""
        return label == 0 or label == self.background_value

    def _check_prior(self, shape: tuple[int, int, int]) -> None:
        assert self.prior is not None
        if self.initial is not None:
            raise ParameterError("Give an initial mask or the probabilities of a prior, not both.")
        if self.prior.ndim != 4 or tuple(self.prior.shape[1:]) != tuple(shape):
            raise GeometryError(
                f"The prior has shape {tuple(self.prior.shape)}; it needs one channel per class "
                f"(background first) on the image's grid {tuple(shape)}."
            )
        if not 2 <= len(self.prior) <= MOST_CLASSES:
            raise LabelError(
                f"The prior has {len(self.prior)} channels; it needs 2 to {MOST_CLASSES}, "
                "background first."
            )
        if self.prior.dtype.kind != "f" and self.prior.dtype != np.uint8:
            raise LabelError(
                f"The prior holds values of type {self.prior.dtype}, not floats or bytes."
            )
        total = self.prior.sum(axis=0, dtype=np.float32)
        if self.prior.dtype == np.uint8:
            total /= PRIOR_SCALE
        if not (self.prior.min() >= 0 and np.abs(total - 1).max() <= PRIOR_TOLERANCE):
            raise LabelError(
                "The probabilities of the prior must not be negative and must add up to 1, not "
                f"to {total.min():.4g} to {total.max():.4g}: divide them by their sum; the "
                "background is the first channel."
            )

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse prompts that do not fit a grid or contradict themselves.

        Parameters
        ----------
        shape : (Z, Y, X) of the canonical grid

        Raises
        ------
        GeometryError
            When an array has another shape than the image, or a point or box lies outside.
        LabelError
            When values are not integers or negative.
        ParameterError
            When settings contradict each other, or points, boxes or slices are no such objects.
        """
        check(self)
        self._check_values()
        self._check_arrays(shape)
        self._check_points(shape)
        self._check_boxes(shape)
        check_slices(self.fully_labeled, shape)
        check_locked(self.locked)
        if self.locked and self.result is None:
            raise ParameterError(
                "Locked classes need a result: set 'result' to the label image that holds them."
            )
        if any(self.is_background(label) for label in self.locked):
            raise LabelError("The background cannot be locked; lock the classes instead.")

    def _check_values(self) -> None:
        for name in ("unlabeled", "background"):
            value = getattr(self, name)
            if not is_whole(value) and not (name == "background" and value is None):
                raise ParameterError(
                    f"'{name}' is a value of the label image, an integer, not {value!r}."
                )
        if self.background is not None and self.background == self.unlabeled:
            raise ParameterError(
                f"The values of unlabeled voxels and of background are both {self.unlabeled}; "
                "they must differ."
            )

    def _check_arrays(self, shape: tuple[int, int, int]) -> None:
        for name in ("labels", "initial", "result", "prior"):
            array = getattr(self, name)
            if array is None:
                continue
            if not isinstance(array, np.ndarray):
                kind = type(array).__name__
                raise LabelError(f"The {_NAMES[name]} is a {kind}; make it a NumPy array.")
            if np.ma.isMaskedArray(array):
                raise LabelError(
                    f"The {_NAMES[name]} is a masked array, whose masked values would count; fill "
                    "them first, as in array.filled(0)."
                )
            if name == "prior":
                self._check_prior(shape)
                continue
            if tuple(array.shape) != tuple(shape):
                raise GeometryError(
                    f"The {_NAMES[name]} has shape {tuple(array.shape)}, the image "
                    f"{tuple(shape)}: they must share a grid."
                )
            if array.dtype.kind not in "iub":
                raise LabelError(
                    f"The {_NAMES[name]} holds values of type {array.dtype}; labels are integers."
                )
            if not np.can_cast(array.dtype, np.int32) and array.max() > LABELS.max:
                raise LabelError(
                    f"The {_NAMES[name]} holds {array.max()}; labels are at most {LABELS.max:,}."
                )

        background = self.background_value
        if background and self.initial is not None and (self.initial == background).any():
            raise LabelError(
                f"The {_NAMES['initial']} has the label {background}, which means background in "
                "the strokes: give the background of the strokes another value, or the class "
                "another label."
            )

    def _check_points(self, shape: tuple[int, int, int]) -> None:
        check_entries(self.points, Point, "points", "Point((2, 3, 4), label=1)")
        for point in self.points:
            place = as_place(point.position, f"The point at {point.position}")
            if any(not -0.5 <= p <= n - 0.5 for p, n in zip(place, shape, strict=True)):
                raise GeometryError(f"The point at {point.position} lies outside the image.")
            if not isinstance(point.positive, (bool, np.bool_, int)):
                raise ParameterError(f"A point is positive or not, not {point.positive!r}.")
            self._check_label(point.label)
            if not point.positive and self.is_background(point.label):
                raise LabelError("A negative point needs a class; it cannot be of the background.")

    def _check_boxes(self, shape: tuple[int, int, int]) -> None:
        check_entries(self.boxes, Box, "boxes", "Box((0, 2, 2), (4, 8, 8), label=1)")
        for box in self.boxes:
            name = f"The box from {box.start} to {box.stop}"
            start, stop = (as_place(corner, name, whole=True) for corner in (box.start, box.stop))
            sizes = zip(start, stop, shape, strict=True)
            if any(b - a < 1 or a >= n or b <= 0 for a, b, n in sizes):
                raise GeometryError(f"{name} is empty or outside the image.")
            self._check_label(box.label)
            if self.is_background(box.label):
                raise LabelError("A box needs a class; it cannot be of the background.")

    def _check_label(self, label: int) -> None:
        """Refuse what is neither a class nor the background's value, which may be negative."""
        if not is_whole(label) or not self.is_background(label):
            check_label(label)


_NAMES = {
    "labels": "prompts' label image",
    "initial": "initial mask",
    "result": "result with locked classes",
    "prior": "prior",
}


def most_likely(prior: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the most likely class of every voxel.

    Parameters
    ----------
    prior : (K, Z, Y, X) ndarray
        Of at most ``MOST_CLASSES`` classes.

    Returns
    -------
    (Z, Y, X) ndarray of uint8
        Class indices. Found slice by slice, as all at once would take 8 bytes a voxel.

    Examples
    --------
    >>> import numpy as np
    >>> most_likely(np.array([0.2, 0.7, 0.1]).reshape(3, 1, 1, 1)).tolist()
    [[[1]]]
    """
    out = np.empty(prior.shape[1:], np.uint8)
    for z in range(len(out)):
        out[z] = prior[:, z].argmax(axis=0)
    return out
