"""What rendering engines have in common: how they are made, what they are asked, what they answer.

An engine renders one parameter table after another on one stack of slices. All engines are made
from one :class:`EngineSpec`. What not every engine can do is a protocol of its own:
:class:`DifferentiableEngine` for gradients of any loss, :class:`ScoreRenderer` for class scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import Blend, GaussianField


@dataclass(frozen=True, eq=False)
class EngineSpec:
    """All that an engine must know before it sees Gaussians.

    Attributes
    ----------
    shape : tuple of int
        (slices, rows, columns) of the stack.
    channels : int
        C, image channels and classes together.
    background : (C,) ndarray of float32
        Values where no Gaussian reaches; zeros by default.
    degree : int
        Degree of the fold polynomial, 0 to 3.
    cutoff, eps : float
        Support and background weight, see :class:`~napari_medgs.data.field.FieldInfo`.
    blend : {"normalized", "sum", "alpha"}
        How overlapping Gaussians combine.
    threads : int, optional
        CPU threads; all by default. GPU engines have their own.

    Examples
    --------
    >>> spec = EngineSpec((1, 8, 8), channels=1)
    >>> spec.background.shape
    (1,)
    """

    shape: tuple[int, int, int]
    channels: int
    background: Floats = field(default=None, repr=False)  # type: ignore[arg-type]
    degree: int = 3
    cutoff: float = 9.0
    eps: float = 1e-3
    blend: Blend = "normalized"
    threads: int | None = None

    def __post_init__(self) -> None:
        depth, height, width = (int(n) for n in self.shape)
        object.__setattr__(self, "shape", (depth, height, width))
        given = np.zeros(self.channels) if self.background is None else self.background
        object.__setattr__(self, "background", np.ascontiguousarray(given, np.float32))

    @classmethod
    def of_field(cls, field: GaussianField, threads: int | None = None) -> EngineSpec:
        """Return the spec that renders a field on its own grid.

        Parameters
        ----------
        field : GaussianField
        threads : int, optional
            CPU threads; all by default.

        Returns
        -------
        EngineSpec
        """
        info = field.info
        return cls(
            info.stack_shape,
            info.channels,
            field.background,
            info.degree,
            info.cutoff,
            info.eps,
            info.blend,
            threads,
        )


@dataclass
class StackTarget:
    """What a stack should look like, slices first.

    Attributes
    ----------
    images : (M, Z, Y, X) ndarray of float32
    image_weights : (M, Z) ndarray of float32
        Loss weight of each channel in each slice; 0 leaves a slice out.
    labels : (Z, Y, X) ndarray of uint8
        Class indices, 255 where unlabeled; (0, 0, 0) without classes.
    seg_weights : (Z,) ndarray of float32
        Loss weight of the labels in each slice.
    classes : int
    l1 : bool
        Absolute instead of squared image errors.
    scored : (Z,) ndarray of bool, optional
        Slices whose squared errors are the image error; all of positive weight by default. The
        others are through-plane targets: fitted, but no part of the image.
    """

    images: Floats
    image_weights: Floats
    labels: NDArray[np.uint8]
    seg_weights: Floats
    classes: int = 0
    l1: bool = False
    scored: NDArray[np.bool_] | None = None

    @property
    def weighted(self) -> NDArray[np.bool_]:
        """Slices of positive image weight, (Z,)."""
        used: NDArray[np.bool_] = np.any(self.image_weights > 0, axis=0)
        return used

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Slices of positive image weight whose squared errors are the image error, (Z,)."""
        return self.weighted if self.scored is None else self.weighted & self.scored

    @property
    def active(self) -> NDArray[np.bool_]:
        """Slices that carry any loss, (Z,)."""
        used = self.weighted
        if self.classes:
            used = used | (self.seg_weights > 0)
        return used


class LossAndGradient(NamedTuple):
    """Errors of a rendering and the gradient of its loss.

    Attributes
    ----------
    image_error : float
        Unweighted sum of squared image errors over the scored slices.
    label_error : float
        Sum over labeled voxels of one minus the probability of the true class. Slices whose labels
        have no weight may be left out.
    gradient : (N, 14 + C) ndarray or tensor
        Of the loss; the engine may reuse the array in its next call.
    through_plane_error : float
        Unweighted sum of squared image errors over slices that have a weight and are not scored.
    """

    image_error: float
    label_error: float
    gradient: Any
    through_plane_error: float


class Engine(Protocol):
    """Renders parameter tables (N, 14 + C) on one stack.

    The columns of a table are those of :mod:`napari_medgs.rendering.parameters`. CPU engines
    take and return arrays, GPU engines arrays or tensors, whichever they are given.
    """

    @property
    def spec(self) -> EngineSpec:
        """What the engine was made from."""

    def render(self, parameters: Any, slices: NDArray[Any] | None = None) -> Any:
        """Render all channels of all or some slices.

        Parameters
        ----------
        parameters : (N, 14 + C) ndarray of float32
        slices : (S,) ndarray of int, optional
            Increasing indices along the slice axis; all by default.

        Returns
        -------
        (C, S, Y, X) ndarray of float32
        """

    def loss_and_gradient(self, parameters: Any, target: StackTarget) -> LossAndGradient:
        """Return errors and the gradient of the loss.

        The loss is half the weighted squared error (or the weighted absolute error) of the image
        channels plus the weighted softmax cross-entropy of the class logits.

        Parameters
        ----------
        parameters : (N, 14 + C) ndarray of float32
        target : StackTarget

        Returns
        -------
        LossAndGradient
        """


@runtime_checkable
class DifferentiableEngine(Engine, Protocol):
    """An engine that gives gradients of any loss of its rendering."""

    def backward(
        self, parameters: Any, grad_output: Any, slices: NDArray[Any] | None = None
    ) -> Any:
        """Return the vector-Jacobian product of :meth:`Engine.render`.

        Parameters
        ----------
        parameters : (N, 14 + C) ndarray or tensor
        grad_output : (C, S, Y, X) ndarray or tensor
            Derivative of a loss with respect to what :meth:`Engine.render` returns.
        slices : (S,) ndarray of int, optional
            As for :meth:`Engine.render`.

        Returns
        -------
        (N, 14 + C) ndarray or tensor
            Derivative of the loss with respect to the parameters.
        """


@runtime_checkable
class SliceVisitor(Engine, Protocol):
    """An engine that renders slice by slice, without a volume of all channels."""

    def visit_slices(
        self, parameters: Floats, slices: NDArray[Any], visit: Callable[[int, Floats], None]
    ) -> None:
        """Call ``visit`` with each slice and its rendering, from several threads.

        Parameters
        ----------
        parameters : (N, 14 + C) ndarray of float32
        slices : (S,) ndarray of int
        visit : callable
            Receives the index of a slice and its channels (C, Y, X).
        """


@dataclass(frozen=True)
class Backprojection:
    """Labeled voxels, distributed to the Gaussians that render them.

    Attributes
    ----------
    mass : (N, K) ndarray of float32
        What each Gaussian receives of every class, in voxels.
    share : (N,) ndarray of float32
        How much of a labeled voxel a Gaussian renders, 0 to 1: the mean over the voxels that it
        reaches, weighted by this share itself. Small for one that reaches them with its tail only.
    leader : (P,) ndarray of int32
        The Gaussian that renders most of every voxel; -1 in empty space.
    """

    mass: Floats
    share: Floats
    leader: NDArray[np.int32]


class ScoreRenderer(Protocol):
    """Renders class scores (N, K) of one field's Gaussians, whose geometry is prepared once.

    Arrays have the field's slice axis first, see ``FieldInfo.stack_axes``. Scores are blended in
    the proportions of the normalized blend, without a background.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""

    def argmax(
        self,
        scores: Floats,
        labels: NDArray[np.uint8],
        best: Floats,
        margin: Floats,
        windows: NDArray[np.int32] | None = None,
    ) -> None:
        """Fill the class of the highest score, that score, and its lead over the second.

        Parameters
        ----------
        scores : (N, K) ndarray of float32
        labels, best, margin : (Z, Y, X) ndarrays
            Written in place; label 0 where nothing is rendered.
        windows : (Z, 2, 2) ndarray of int32, optional
            First and last + 1 row, and first and last + 1 column to write, by slice; all by
            default.
        """

    def windows(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return which rows and columns some Gaussians reach in every slice.

        Parameters
        ----------
        chosen : (N,) ndarray of bool

        Returns
        -------
        (Z, 2, 2) ndarray of int32
            Boxes around all of them, as :meth:`argmax` takes them; the last is not above the
            first where none reaches.
        """

    def render_plane(
        self, scores: Floats, axis: int, index: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Render scores in one plane across any axis of the stack.

        Parameters
        ----------
        scores : (N, K) ndarray of float32
        axis : int
            0 for a slice, 1 for a row, 2 for a column of every slice.
        index : int
            Position along that axis.

        Returns
        -------
        scores : (K, rows, columns) ndarray of float32
        empty : (rows, columns) ndarray of bool
            Where nothing is rendered.
        """

    def backproject(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int
    ) -> Backprojection:
        """Distribute labeled voxels to Gaussians: the transpose of rendering.

        Every voxel is one unit, divided in the proportions in which Gaussians render it.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
            (slice, row, column).
        classes : (P,) ndarray of int
        count : int
            K, the number of classes.

        Returns
        -------
        Backprojection
        """

    def empty_mask(self) -> NDArray[np.bool_]:
        """Return where nothing is rendered, (Z, Y, X)."""


EngineFactory = Callable[[EngineSpec], Engine]
ScoreRendererFactory = Callable[[GaussianField, "int | None"], ScoreRenderer]
