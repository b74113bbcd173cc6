"""Interactive segmentation as one object: set an image, add prompts, ask for the mask."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Box, Point

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams
    from napari_medgs.segmentation.model import SegmentModel
    from napari_medgs.segmentation.result.result import SegmentResult
    from napari_medgs.segmentation.result.suggest import Suggestion
    from napari_medgs.segmentation.session.session import Session

UNLABELED, BACKGROUND = -1, 0


class InteractiveSegmenter:
    """Segment one image step by step, with undo, redo and a log that can be replayed.

    Every method that adds a prompt is one step of the history. Nothing is computed until
    :meth:`result` is called; the field of Gaussians is fitted at the first call and kept.

    Places are voxel indices (z, y, x) of the image's canonical grid, or RAS millimeters with
    ``world=True``. Label 0 is background, classes are positive integers.

    Parameters
    ----------
    params : SegmentParams, optional
        Settings of the solver.
    fit_params : FitParams, optional
        How the field is fitted where none is given.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> segmenter = mg.InteractiveSegmenter()
    >>> segmenter.set_image(mg.Volume(head.image[None], head.grid))
    >>> middle = head.labels.shape[0] // 2
    >>> for label, tissue in ((0, 0), (1, 5)):
    ...     stroke = head.labels == tissue
    ...     stroke[:middle] = stroke[middle + 1 :] = False
    ...     _ = segmenter.add_scribble(label, stroke)
    >>> mask = segmenter.result().labels
    >>> mask.shape == head.labels.shape, bool(mask.any())
    (True, True)
    >>> segmenter.undo(), segmenter.can_redo
    (True, True)
    """

    def __init__(
        self, params: SegmentParams | None = None, *, fit_params: FitParams | None = None
    ) -> None:
        self._params = params or SegmentParams()
        self._fit_params = fit_params
        self._volume: Volume | None = None
        self._field: GaussianField | None = None
        self._model: SegmentModel | None = None
        self._session: Session | None = None
        self._result: SegmentResult | None = None

    # The image

    def set_image(
        self,
        image: Volume | ArrayLike | str | Path,
        *,
        spacing: Sequence[float] | None = None,
        affine: ArrayLike | None = None,
        field: GaussianField | None = None,
    ) -> None:
        """Choose the image; prompts and results of another one are dropped.

        Parameters
        ----------
        image : Volume, path or (Z, Y, X) or (C, Z, Y, X) array
            A path is read by :func:`~napari_medgs.io.read_volume`.
        spacing : (z, y, x) in mm, optional
        affine : (4, 4) array, optional
            Of an array: maps (z, y, x, 1) to RAS millimeters.
        field : GaussianField, optional
            Fitted to this image; fitted at the first :meth:`result` otherwise.

        Raises
        ------
        MedGSError
            When the image cannot be read or used, or the field belongs to another grid.
        """
        from napari_medgs.segmentation.session.session import Session
        from napari_medgs.segmentation.session.settings import Settings

        volume = _as_volume(image, spacing, affine)
        volume.check_image()
        if field is not None and not field.info.grid.matches(volume.grid):
            raise GeometryError(
                "The field was fitted on another grid than the image's; fit it to this image."
            )
        settings = Settings(unlabeled=UNLABELED, background=BACKGROUND, params=self._params)
        images = [str(image)] if isinstance(image, (str, Path)) else []
        self._start(volume, Session(volume.grid, settings, images=images), field)

    def _start(self, volume: Volume, session: Session, field: GaussianField | None) -> None:
        self._volume, self._session, self._field = volume, session, field
        self._model = self._result = None

    @property
    def volume(self) -> Volume:
        """The image."""
        self._need()
        assert self._volume is not None
        return self._volume

    @property
    def session(self) -> Session:
        """Prompts, settings and history behind this object."""
        return self._need()

    @property
    def field(self) -> GaussianField | None:
        """The fitted field, or None before the first result."""
        return self._field

    # Prompts

    def add_scribble(self, label: int, where: ArrayLike, *, world: bool = False) -> bool:
        """Mark voxels as one class, or as background.

        Parameters
        ----------
        label : int
            A class, or 0 for background.
        where : (Z, Y, X) boolean array, or (N, 3) array
            The marked voxels; or the corners of a line through places (z, y, x), with
            ``world`` RAS millimeters (x, y, z).
        world : bool

        Returns
        -------
        bool
            False where all of it was marked so already.

        Raises
        ------
        GeometryError
            When the mask has another shape than the image, or a line leaves it.
        LabelError
            When the label is negative or nothing is marked.
        """
        session = self._need()
        return session.paint(self._voxels(where, world), _label(label))

    def erase(self, where: ArrayLike, *, world: bool = False) -> bool:
        """Take scribbles away; see :meth:`add_scribble` for ``where``."""
        session = self._need()
        return session.paint(self._voxels(where, world), UNLABELED)

    def add_point(
        self,
        label: int,
        position: Sequence[float],
        *,
        positive: bool = True,
        radius: float = 1.0,
        world: bool = False,
    ) -> bool:
        """Click: this place belongs to a class, or (``positive=False``) does not.

        Parameters
        ----------
        label : int
        position : (z, y, x) in voxels, or (x, y, z) in RAS mm with ``world``
        positive : bool
        radius : float
            Of the marked ball, in voxels of the finest axis.
        world : bool

        Returns
        -------
        bool
            False where the very same point was there.

        Raises
        ------
        GeometryError
            When it lies outside of the image.
        """
        z, y, x = self._places([position], world)[0]
        point = Point((float(z), float(y), float(x)), _label(label), positive, float(radius))
        session = self._need()
        if point in session.settings.points:
            return False
        return self._change(points=(*session.settings.points, point))

    def add_box(
        self, label: int, start: Sequence[float], stop: Sequence[float], *, world: bool = False
    ) -> bool:
        """Say that all of a class lies in a box.

        Parameters
        ----------
        label : int
        start, stop : (z, y, x) in voxels, or (x, y, z) in RAS mm with ``world``
            First voxel and one past the last; in millimeters two opposite corners.
        world : bool

        Returns
        -------
        bool
            False where the very same box was there.

        Raises
        ------
        GeometryError
            When it is empty or outside of the image.
        """
        corners = self._places([start, stop], world, inside=False)
        if world:
            low, high = np.floor(corners.min(axis=0) + 0.5), np.floor(corners.max(axis=0) + 1.5)
        else:
            low, high = corners
        first, last = np.asarray(low, int).tolist(), np.asarray(high, int).tolist()
        session = self._need()
        box = Box((first[0], first[1], first[2]), (last[0], last[1], last[2]), _label(label))
        if box in session.settings.boxes:
            return False
        return self._change(boxes=(*session.settings.boxes, box))

    def set_initial(self, mask: ArrayLike | None, *, margin: float | None = None) -> None:
        """Start from a mask, which is trusted except near its boundary.

        Parameters
        ----------
        mask : (Z, Y, X) array of int, or None for none
            0 is background.
        margin : float, optional
            Distance from its boundary, in voxels of the finest axis, within which the mask is
            not trusted; the setting's default otherwise.

        Raises
        ------
        GeometryError, LabelError
            When the mask has another shape, or values are not integers from 0.
        """
        session = self._need()
        initial = None
        if mask is not None:
            initial = np.asarray(mask)
            if initial.dtype == bool:
                initial = initial.astype(np.uint8)
            if initial.shape != session.grid.shape:
                raise GeometryError(
                    f"The initial mask has shape {initial.shape}, the image "
                    f"{session.grid.shape}: they must share a grid."
                )
            if initial.dtype.kind not in "iu" or (initial.size and initial.min() < 0):
                raise LabelError("The initial mask must hold integers from 0, the background.")
        session.set_initial(initial)
        if margin is not None:
            self._change(initial_margin=float(margin))

    def set_params(self, params: SegmentParams) -> bool:
        """Change the solver's settings, as one step."""
        return self._need().update_settings(params=params)

    def _change(self, **changes: Any) -> bool:
        """Change settings; checked first, so that no unusable step gets into the history."""
        session = self._need()
        prompts = {k: v for k, v in changes.items() if k in ("points", "boxes", "initial_margin")}
        replace(session.prompts(), **prompts).check(session.grid.shape)
        return session.update_settings(**changes)

    # History

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self._need().can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return self._need().can_redo

    def undo(self) -> bool:
        """Undo the last step, its effect on :attr:`labels` included; False where none is."""
        return self._need().undo() is not None

    def redo(self) -> bool:
        """Redo the step undone last; False where none is."""
        return self._need().redo() is not None

    # Results

    @property
    def labels(self) -> NDArray[Any]:
        """The mask as last computed or brought back by undo, (Z, Y, X); not computed anew."""
        return self._need().labels

    def result(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Return the mask for the present prompts; computed only where they have changed.

        Parameters
        ----------
        progress, should_stop : callable, optional

        Returns
        -------
        SegmentResult
            ``labels`` (Z, Y, X), volumes in ml, probabilities and uncertainty on demand.

        Raises
        ------
        ParameterError
            When fewer than two classes (background counts) are marked.
        Cancelled
            When stopped; prompts and the last result stay.
        """
        session = self._need()
        if self._result is None or not session.is_current:
            # Refused before the field is fitted.
            session.prompts().check(session.grid.shape)
            model = self._prepare(progress, should_stop)
            self._result = session.solve(model, progress=progress, should_stop=should_stop)
        return self._result

    def _prepare(self, progress: ProgressCallback, should_stop: StopCallback) -> SegmentModel:
        if self._model is None:
            from napari_medgs.segmentation.api import fit_for_segmentation
            from napari_medgs.segmentation.model import SegmentModel
            from napari_medgs.segmentation.prompts.markers import check_prompts

            session, volume = self._need(), self.volume
            check_prompts(session.prompts(), volume)
            if self._field is None:
                self._field = fit_for_segmentation(
                    volume, self._fit_params, progress=progress, should_stop=should_stop
                )
            self._model = SegmentModel(
                volume,
                self._field,
                session.settings.params,
                progress=progress,
                should_stop=should_stop,
            )
        return self._model

    def uncertainty(self) -> NDArray[np.float32]:
        """Return the probability that each voxel's label is wrong, (Z, Y, X), 0 to 1."""
        return self.result().uncertainty()

    def suggest(self, count: int = 1, axis: int | None = None) -> list[Suggestion]:
        """Return the slices where one more scribble helps most, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices; that of the scribbles by default.
        """
        self.result()
        assert self._model is not None
        return self._model.suggest(count, axis)

    # Files

    def save(self, path: str | Path) -> Path:
        """Write prompts, settings and history to a JSON file that can be replayed.

        Raises
        ------
        FileError
            When it cannot be written.
        """
        from napari_medgs.segmentation.session.replay import save_session

        return save_session(self._need(), path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        image: Volume | ArrayLike | str | Path,
        *,
        spacing: Sequence[float] | None = None,
        affine: ArrayLike | None = None,
        field: GaussianField | None = None,
    ) -> InteractiveSegmenter:
        """Restore a segmenter from :meth:`save`, or from a session saved in the viewer.

        Parameters
        ----------
        path : str or Path
        image, spacing, affine, field
            See :meth:`set_image`.

        Raises
        ------
        FileError, FormatVersionError
            When the file is no session, or a newer one.
        GeometryError
            When it belongs to an image on another grid.
        """
        from napari_medgs.segmentation.session.replay import load_session

        volume = _as_volume(image, spacing, affine)
        session, _ = load_session(path, volume.grid)
        segmenter = cls(session.settings.params)
        segmenter._start(volume, session, field)
        return segmenter

    # Helpers

    def _need(self) -> Session:
        if self._session is None:
            raise ParameterError("There is no image yet: call set_image first.")
        return self._session

    def _places(
        self, places: Sequence[Sequence[float]] | ArrayLike, world: bool, inside: bool = True
    ) -> NDArray[np.float64]:
        """Return places (N, 3) as voxel coordinates (z, y, x).

        Raises
        ------
        GeometryError
            When they are no triples of finite numbers, or outside of the image.
        """
        grid = self._need().grid
        points = np.asarray(places, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise GeometryError("A place is three finite numbers.")
        if world:
            inverse = np.linalg.inv(grid.affine)
            points = points @ inverse[:3, :3].T + inverse[:3, 3]
        if inside and ((points < -0.5) | (points > np.asarray(grid.shape) - 0.5)).any():
            raise GeometryError(f"A place lies outside of the image of shape {grid.shape}.")
        return points

    def _voxels(self, where: ArrayLike, world: bool) -> Any:
        """Return an index expression for a mask or a line.

        Raises
        ------
        GeometryError, LabelError
            When it does not fit the image, or marks nothing.
        """
        array = np.asarray(where)
        shape = self._need().grid.shape
        if array.dtype != bool:
            from skimage.draw import line_nd

            corners = self._places(array, world)
            lines = [corners] if len(corners) == 1 else []
            for first, second in itertools.pairwise(corners):
                lines.append(np.stack(line_nd(first, second, endpoint=True), axis=1))
            if not lines:
                raise LabelError("The scribble marks no voxel.")
            voxels = np.round(np.concatenate(lines)).astype(int)
            return tuple(np.clip(voxels, 0, np.asarray(shape) - 1).T)
        if array.shape != shape:
            raise GeometryError(f"The scribble has shape {array.shape}, the image {shape}.")
        if not array.any():
            raise LabelError("The scribble marks no voxel.")
        return array


def _label(label: int) -> int:
    if int(label) != label or label < 0:
        raise LabelError(f"A label is an integer from 0 (background), not {label}.")
    return int(label)


def _as_volume(
    image: Volume | ArrayLike | str | Path,
    spacing: Sequence[float] | None,
    affine: ArrayLike | None,
) -> Volume:
    from napari_medgs.data.volume import Volume

    if isinstance(image, (str, Path)):
        from napari_medgs.io import read_volume

        sizes = None if spacing is None else (spacing[0], spacing[1], spacing[2])
        if affine is not None:
            raise ParameterError("An affine goes with an array; a file has its own.")
        return read_volume(image, spacing=sizes)
    if isinstance(image, Volume):
        if spacing is not None or affine is not None:
            raise ParameterError("A Volume has its own geometry: leave spacing and affine out.")
        return image
    return Volume.from_array(image, spacing, affine)
