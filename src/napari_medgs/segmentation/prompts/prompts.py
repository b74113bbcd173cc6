"""What a user gives: strokes, painted slices, points, boxes, an initial mask, corrections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError

MOST_CLASSES = 250
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """One click.

    Attributes
    ----------
    position : (z, y, x)
        In voxels of the canonical grid.
    label : int
        The class, or the prompts' background value (or 0) for background.
    positive : bool
        False says that the class is not here; the next best one is.
    radius : float
        Radius of the marked ball in voxels of the finest axis.
    """

    position: Triple
    label: int
    positive: bool = True
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    """A box that holds all of a class.

    Attributes
    ----------
    start, stop : (z, y, x)
        First voxel and one past the last, on the canonical grid.
    label : int
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    label: int


@dataclass(frozen=True)
class Prompts:
    """Everything that the user said so far; later kinds win over earlier ones.

    Attributes
    ----------
    initial : (Z, Y, X) ndarray of int, optional
        A mask to refine, 0 is background; believed except near its boundaries.
    labels : (Z, Y, X) ndarray of int, optional
        Strokes and painted slices.
    unlabelled : int
        The value in ``labels`` that says nothing.
    background : int, optional
        The value in ``labels`` that means background. By default 0, unless that is
        ``unlabelled``.
    painted : tuple of (axis, index)
        Slices painted in full, in which unlabelled voxels are background. Slices without any
        unlabelled voxel are found by themselves.
    points, boxes
        See :class:`Point` and :class:`Box`.
    corrections : (Z, Y, X) ndarray of int, optional
        Painted on the result, in the result's values: 0 background; -1 where nothing was.
    initial_margin : float
        How near its boundary the initial mask is not believed, in voxels of the finest axis.
    locked : frozenset of int
        Classes that stay as they are in ``result``.
    result : (Z, Y, X) ndarray of int, optional
        What ``locked`` refers to.
    """

    labels: NDArray[Any] | None = None
    unlabelled: int = 0
    background: int | None = None
    painted: tuple[tuple[int, int], ...] = ()
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    initial: NDArray[Any] | None = None
    initial_margin: float = 3.0
    corrections: NDArray[Any] | None = None
    locked: frozenset[int] = frozenset()
    result: NDArray[Any] | None = None

    @property
    def background_value(self) -> int | None:
        """The value of background strokes in ``labels``, or None where there is none."""
        if self.background is not None:
            return self.background
        return 0 if self.unlabelled != 0 else None

    def with_labels(self, labels: NDArray[Any]) -> Prompts:
        """Return the same prompts with other strokes."""
        return replace(self, labels=labels)

    def is_background(self, label: int) -> bool:
        """Tell whether a label of a point means background."""
        return label == 0 or label == self.background_value

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse prompts that do not fit a grid or contradict themselves.

        Raises
        ------
        GeometryError
            When an array has another shape than the image, or a point or box lies outside.
        LabelError
            When values are not integers or negative.
        ParameterError
            When settings contradict each other.
        """
        if self.background is not None and self.background == self.unlabelled:
            raise ParameterError(
                f"The values for unlabelled and for background are both {self.unlabelled}; "
                "they must differ."
            )
        for name in ("labels", "initial", "corrections", "result"):
            array = getattr(self, name)
            if array is None:
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
        for point in self.points:
            if any(not -0.5 <= p <= n - 0.5 for p, n in zip(point.position, shape, strict=True)):
                raise GeometryError(f"The point at {point.position} lies outside the image.")
            if not point.positive and self.is_background(point.label):
                raise LabelError("A negative point needs a class; it cannot deny the background.")
        for box in self.boxes:
            sizes = zip(box.start, box.stop, shape, strict=True)
            if any(b - a < 1 or a >= n or b <= 0 for a, b, n in sizes):
                raise GeometryError(
                    f"The box from {box.start} to {box.stop} is empty or outside the image."
                )
            if self.is_background(box.label):
                raise LabelError("A box needs a class; it cannot hold the background.")
        for axis, index in self.painted:
            if axis not in (0, 1, 2) or not 0 <= index < shape[axis]:
                raise GeometryError(f"The painted slice {index} of axis {axis} does not exist.")
        if self.locked and self.result is None:
            raise ParameterError("Locked classes need the result in which they are locked.")
        if any(self.is_background(label) for label in self.locked):
            raise LabelError("The background cannot be locked; lock classes.")


_NAMES = {
    "labels": "prompts' label image",
    "initial": "initial mask",
    "corrections": "correction image",
    "result": "result with locked classes",
}
