"""Interactive segmentation as one object: set an image, add prompts, ask for the mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.coordinates import check_label, marked_voxels, to_voxels
from napari_medgs.segmentation.prompts.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams
    from napari_medgs.segmentation.contracts import Model, Snapshot
    from napari_medgs.segmentation.object_tool import ObjectTool
    from napari_medgs.segmentation.part_tool import PartTool
    from napari_medgs.segmentation.postprocess.class_edits import ClassEdit
    from napari_medgs.segmentation.postprocess.scissors import Cut
    from napari_medgs.segmentation.result.result import SegmentResult
    from napari_medgs.segmentation.result.suggest import Suggestion
    from napari_medgs.segmentation.session.history import Delta, Step
    from napari_medgs.segmentation.session.session import Session

UNLABELED, BACKGROUND = -1, 0


class InteractiveSegmenter:
    """Segment one image step by step, with undo, redo and a log that can be replayed.

    Every method that adds a prompt is one step of the history. Nothing is computed until
    :meth:`result` is called; the field of Gaussians is fitted at the first call and kept.

    Places are voxel indices (z, y, x) of the image's canonical grid, or RAS millimeters with
    ``world=True``. Label 0 is background, classes are positive integers.

    Prompts may be added in one thread while another one solves: :meth:`snapshot` copies them
    under a lock, :meth:`update` works without it. Solve in one thread at a time.

    Parameters
    ----------
    params : SegmentParams, optional
        Settings of the solver.
    fit_params : FitParams, optional
        How the field is fitted where none is given.

    Attributes
    ----------
    threads : int or None
        CPU threads of the next fit and solve; None for all. Those of ``params`` at first. No
        part of the history, since results do not depend on it.

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
    >>> step = segmenter.undo()
    >>> step.kind, segmenter.can_redo
    ('strokes', True)
    """

    def __init__(
        self, params: SegmentParams | None = None, *, fit_params: FitParams | None = None
    ) -> None:
        self._params = params or SegmentParams()
        self._fit_params = fit_params
        self.threads = self._params.threads
        self._lock = RLock()
        self._volume: Volume | None = None
        self._field: GaussianField | None = None
        self._model: Model | None = None
        self._model_voxels = 0
        self._session: Session | None = None
        self._result: SegmentResult | None = None
        self._parts: PartTool | None = None
        self._object: ObjectTool | None = None

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
        volume = volume.prepared()
        if field is not None:
            _check_field(field, volume)
        settings = Settings(unlabeled=UNLABELED, background=BACKGROUND, params=self._params)
        images = [str(image)] if isinstance(image, (str, Path)) else []
        self._start(volume, Session(volume.grid, settings, images=images), field)

    def _start(self, volume: Volume, session: Session, field: GaussianField | None) -> None:
        self._volume, self._session, self._field = volume, session, field
        self._model = self._result = self._parts = self._object = None

    @classmethod
    def from_session(
        cls,
        session: Session,
        volume: Volume,
        *,
        field: GaussianField | None = None,
        fit_params: FitParams | None = None,
    ) -> InteractiveSegmenter:
        """Continue a session, whose settings count.

        Parameters
        ----------
        session : Session
            Not copied: change it through this object only from now on.
        volume : Volume
            Its image.
        field : GaussianField, optional
            Fitted to this image; fitted when first needed otherwise.
        fit_params : FitParams, optional
            How the field is fitted where none is given.

        Returns
        -------
        InteractiveSegmenter

        Raises
        ------
        GeometryError
            When session or field belong to an image on another grid.

        Examples
        --------
        >>> import numpy as np
        >>> from napari_medgs.data.volume import Volume
        >>> from napari_medgs.segmentation import InteractiveSegmenter, Session, Settings
        >>> volume = Volume.from_array(np.eye(20, 6, dtype=np.float32).reshape(4, 5, 6))
        >>> session = Session(volume.grid, Settings(background=9))
        >>> segmenter = InteractiveSegmenter.from_session(session, volume)
        >>> segmenter.add_scribble(0, [(1, 2, 2), (1, 2, 4)])
        True
        >>> int((session.strokes == 9).sum())
        3
        """
        if not session.grid.matches(volume.grid):
            raise GeometryError("The session belongs to an image on another grid than this image.")
        if field is not None:
            _check_field(field, volume)
        segmenter = cls(session.settings.params, fit_params=fit_params)
        segmenter._start(volume.prepared(), session, field)
        return segmenter

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
        """The fitted field, or None before there is one."""
        return self._field

    def set_field(self, field: GaussianField) -> None:
        """Segment with this field from now on; prompts and history stay.

        Parameters
        ----------
        field : GaussianField
            Fitted to the image.

        Raises
        ------
        GeometryError
            When it belongs to another grid.
        """
        _check_field(field, self.volume)
        if field is not self._field:
            self._field, self._model, self._result = field, None, None

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes, by label; saved with the session, no part of the history."""
        return self._need().names

    @names.setter
    def names(self, names: Mapping[int, str]) -> None:
        self._need().names = dict(names)

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
        value, voxels = self._stroke_value(label), marked_voxels(session.grid, where, world)
        with self._lock:
            return session.paint(voxels, value)

    def _stroke_value(self, label: int) -> int:
        """Return what stands for a label in the stroke image; the viewer's has values of its own.

        Raises
        ------
        LabelError, ParameterError
            When there is no such value.
        """
        label, settings = check_label(label), self._need().settings
        if label == 0:
            background = self._need().prompts().background_value
            if background is None:
                raise ParameterError(
                    "This session has no value for background scribbles; choose one with "
                    "update_settings(background=...)."
                )
            return background
        if label == settings.unlabeled:
            raise LabelError(f"Label {label} means unlabeled in this session; choose another one.")
        return label

    def erase(self, where: ArrayLike, *, world: bool = False) -> bool:
        """Take scribbles away; see :meth:`add_scribble` for ``where``."""
        session = self._need()
        voxels = marked_voxels(session.grid, where, world)
        with self._lock:
            return session.paint(voxels, session.settings.unlabeled)

    def set_scribbles(self, labels: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Replace all scribbles, or those in a box, by a label image, as one step.

        Parameters
        ----------
        labels : (Z, Y, X) array of int
            Of the box's shape. Unlabeled and background voxels have the values of
            ``session.settings``, by default -1 and 0.
        box : tuple of slice, optional
            Part of the image; all of it by default.

        Returns
        -------
        bool
            False where all of it was so already.

        Raises
        ------
        GeometryError
            When it has another shape.
        """
        session = self._need()
        part = box or (slice(None),) * 3
        before = session.strokes[part]
        if labels.shape != before.shape:
            raise GeometryError(
                f"The scribbles have shape {labels.shape}, the image or box {before.shape}."
            )
        if np.array_equal(labels, before):
            return False
        with self._lock:
            session.strokes[part] = labels
            return session.record_strokes(box)

    def correct(self, edited: NDArray[Any], box: tuple[slice, ...] | None = None) -> bool:
        """Take over a mask that was painted over: what differs from :attr:`labels` is a scribble.

        Parameters
        ----------
        edited : (Z, Y, X) array of int
            0 is background.
        box : tuple of slice, optional
            Where to look; everywhere by default.

        Returns
        -------
        bool
            False where nothing differs.

        Raises
        ------
        ParameterError
            When background was painted and the session has no value for it.
        """
        with self._lock:
            return self._need().correct(edited, box)

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
        z, y, x = to_voxels(self._need().grid, [position], world)[0]
        point = Point((float(z), float(y), float(x)), check_label(label), positive, float(radius))
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
        corners = to_voxels(self._need().grid, [start, stop], world, inside=False)
        if world:
            low, high = np.floor(corners.min(axis=0) + 0.5), np.floor(corners.max(axis=0) + 1.5)
        else:
            low, high = corners
        first, last = np.asarray(low, int).tolist(), np.asarray(high, int).tolist()
        session = self._need()
        box = Box((first[0], first[1], first[2]), (last[0], last[1], last[2]), check_label(label))
        if box in session.settings.boxes:
            return False
        return self._change(boxes=(*session.settings.boxes, box))

    def set_initial(self, mask: ArrayLike | None, *, margin: float | None = None) -> None:
        """Start from a mask, which stays except near prompts that contradict it.

        Parameters
        ----------
        mask : (Z, Y, X) array of int, or None for none
            0 is background.
        margin : float, optional
            Voxels nearer than this to another label may change without a prompt, too, in voxels
            of the finest axis; the setting's present value otherwise (1, none, at first).

        Raises
        ------
        GeometryError, LabelError
            When the mask has another shape, or values are not integers from 0.
        """
        session = self._need()
        initial = None
        if mask is not None:
            initial = self._mask_of(np.asarray(mask))
        with self._lock:
            session.set_initial(initial)
        if margin is not None:
            self._change(initial_margin=float(margin))

    def _mask_of(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Return a mask as integers, checked."""
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.shape != self._need().grid.shape:
            raise GeometryError(
                f"The initial mask has shape {mask.shape}, the image {self._need().grid.shape}: "
                "they must share a grid."
            )
        if mask.dtype.kind not in "iu" or (mask.size and mask.min() < 0):
            raise LabelError("The initial mask must hold integers from 0, the background.")
        return mask

    def set_prior(self, probabilities: NDArray[Any], *, margin: float | None = None) -> bool:
        """Start from class probabilities, such as a network's, as one step.

        The most likely classes are the present mask at once. They stay except near prompts that
        contradict them and where no class is likely. A mask to refine is dropped.

        Parameters
        ----------
        probabilities : (K, Z, Y, X) array of float
            From 0 on, with sum 1 in every voxel; background first. Kept in steps of 1/255.
        margin : float, optional
            See :meth:`set_initial`.

        Returns
        -------
        bool
            False where just these were set.

        Raises
        ------
        GeometryError, LabelError
            When they have another shape than the image, or are no probabilities.

        Examples
        --------
        >>> import numpy as np
        >>> import napari_medgs as mg
        >>> segmenter = mg.InteractiveSegmenter()
        >>> segmenter.set_image(np.random.default_rng(0).random((4, 6, 8), np.float32))
        >>> p = np.zeros((2, 4, 6, 8), np.float32)
        >>> p[1, 1:3, 2:4, 2:6] = 0.9
        >>> p[0] = 1 - p[1]
        >>> segmenter.set_prior(p)
        True
        >>> int(segmenter.labels.sum())
        16
        """
        from napari_medgs.segmentation.session.priors import quantize

        session = self._need()
        given = np.asarray(probabilities)
        Prompts(prior=given).check(session.grid.shape)
        prior = quantize(given)
        with self._lock:
            changed = session.set_prior(prior)
        if margin is not None:
            changed |= self._change(initial_margin=float(margin))
        return changed

    def set_mask(self, labels: ArrayLike) -> bool:
        """Make a mask the result, and what later solves start from, as one step.

        It stays except near later prompts that contradict it, as :meth:`set_initial` says;
        scribbles that contradict it now are erased.

        Parameters
        ----------
        labels : (Z, Y, X) array of int
            0 is background.

        Returns
        -------
        bool
            False where it is the present mask already.

        Raises
        ------
        GeometryError, LabelError
            As :meth:`set_initial`.
        """
        session = self._need()
        mask = self._mask_of(np.array(labels))
        if np.array_equal(mask, session.labels):
            return False
        with self._lock:
            session.set_mask(mask)
        return True

    def edit_class(
        self,
        label: int,
        edit: ClassEdit | str,
        amount: float = 0.0,
        *,
        within: NDArray[np.bool_] | None = None,
        slices: Sequence[int] = (),
        axis: int = 0,
    ) -> bool:
        """Grow, shrink, smooth or clean a class of the present mask, as one step.

        Parameters
        ----------
        label : int
        edit : ClassEdit or str
            "grow", "shrink", "smooth", "keep largest", "remove small", "fill holes" or "fill
            between slices".
        amount : float
            In mm; for "remove small" in mL.
        within : (Z, Y, X) array of bool, optional
            Where voxels may be added.
        slices, axis : sequence of int, int
            Of "fill between slices"; see
            :func:`~napari_medgs.segmentation.postprocess.class_edits.edit_class`.

        Returns
        -------
        bool
            False where nothing changed.

        Raises
        ------
        LabelError, ParameterError
            When the class has no voxels or is locked, or the amount cannot be used.
        """
        from napari_medgs.segmentation.postprocess.class_edits import edit_class

        session = self._need()
        if label in session.settings.locked:
            raise LabelError(f"Class {label} is locked: unlock it to edit it.")
        spacing, labels = session.grid.spacing, session.labels
        return self.set_mask(
            edit_class(
                labels, label, edit, spacing, amount, within=within, slices=slices, axis=axis
            )
        )

    def cut_class(
        self,
        label: int,
        outline: ArrayLike,
        cut: Cut | str = "cut",
        *,
        axis: int = 0,
        slices: tuple[int, int] | None = None,
        within: NDArray[np.bool_] | None = None,
    ) -> bool:
        """Cut a class of the present mask along an outline through the slices, as one step.

        Parameters
        ----------
        label : int
        outline : (P, 2) array of float
            Corners of a closed line, in voxels of the two other axes.
        cut : Cut or str
            "cut" and "keep" take away what is inside or outside, "fill" adds the inside.
        axis, slices, within
            See :func:`~napari_medgs.segmentation.postprocess.scissors.cut_class`.

        Returns
        -------
        bool
            False where nothing changed.

        Raises
        ------
        LabelError, ParameterError
            When the class is locked or has no voxels, or the outline holds none.
        """
        from napari_medgs.segmentation.postprocess.scissors import cut_class

        session = self._need()
        if label in session.settings.locked:
            raise LabelError(f"Class {label} is locked: unlock it to edit it.")
        return self.set_mask(
            cut_class(session.labels, label, outline, cut, axis=axis, slices=slices, within=within)
        )

    @property
    def parts(self) -> PartTool:
        """Clicks on parts of the image; see :class:`PartTool`."""
        from napari_medgs.segmentation.part_tool import PartTool

        self._need()
        if self._parts is None:
            self._parts = PartTool(self, self._lock)
        return self._parts

    @property
    def object(self) -> ObjectTool:
        """One object, with an answer after every prompt; see :class:`ObjectTool`."""
        from napari_medgs.segmentation.object_tool import ObjectTool

        self._need()
        if self._object is None:
            self._object = ObjectTool(self, self._lock)
        return self._object

    def set_params(self, params: SegmentParams) -> bool:
        """Change the solver's settings, as one step; the number of threads is no part of it."""
        self.threads = params.threads
        threads = self._need().settings.params.threads
        return self.update_settings(params=replace(params, threads=threads))

    def lock(self, classes: Iterable[int]) -> bool:
        """Keep classes exactly as they are in :attr:`labels`, whatever is solved later.

        Parameters
        ----------
        classes : iterable of int
            All classes to be locked from now on; others are unlocked.

        Returns
        -------
        bool
            False where just these were locked.

        Raises
        ------
        LabelError
            For the background, or a class without voxels.
        """
        session, labels = self._need(), frozenset(int(label) for label in classes)
        for label in sorted(labels - session.settings.locked):
            if session.prompts().is_background(label) or not (session.labels == label).any():
                raise LabelError(
                    f"The mask has no voxels of a class {label} to lock; compute it first."
                )
        return self.update_settings(locked=labels)

    def update_settings(self, **changes: Any) -> bool:
        """Change fields of ``session.settings``, as one step; checked at the next solve.

        Parameters
        ----------
        **changes
            Fields of :class:`~napari_medgs.segmentation.Settings` with their new values.

        Returns
        -------
        bool
            False where nothing was different.
        """
        with self._lock:
            return self._need().update_settings(**changes)

    def _change(self, **changes: Any) -> bool:
        """Change settings; checked first, so that no unusable step gets into the history."""
        session = self._need()
        prompts = {k: v for k, v in changes.items() if k in ("points", "boxes", "initial_margin")}
        replace(session.prompts(), **prompts).check(session.grid.shape)
        return self.update_settings(**changes)

    # History

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self._need().can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return self._need().can_redo

    def undo(self) -> Step | None:
        """Undo the last step, its effect on :attr:`labels` included.

        Returns
        -------
        Step or None
            What was undone, with the voxels that changed; None where there is nothing to undo.
        """
        with self._lock:
            return self._need().undo()

    def redo(self) -> Step | None:
        """Redo the step undone last; see :meth:`undo`."""
        with self._lock:
            return self._need().redo()

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
            if self._model is None:
                from napari_medgs.segmentation.prompts.markers import check_prompts

                check_prompts(session.prompts(), self.volume)
            self.prepare(progress=progress, should_stop=should_stop)
            with self._lock:
                n_events, snapshot = len(session.events), self.snapshot()
            result = self.update(snapshot, progress=progress, should_stop=should_stop)
            with self._lock:
                # Not current where another thread has added prompts meanwhile.
                self.set_result(result, is_current=n_events == len(session.events))
            return result
        return self._result

    @property
    def is_current(self) -> bool:
        """Whether :attr:`labels` are what a full solve of the present prompts gave."""
        return self._need().is_current

    # Results step by step, for programs that solve in a thread of their own

    @property
    def is_prepared(self) -> bool:
        """Whether :meth:`prepare` has been done."""
        voxels = self._need().settings.params.working_voxels
        return self._model is not None and voxels == self._model_voxels

    def fit_field(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> GaussianField:
        """Return the field, fitted unless there is one.

        Parameters
        ----------
        progress, should_stop : callable, optional

        Returns
        -------
        GaussianField

        Raises
        ------
        MedGSError
            For an unusable image.
        Cancelled
            When stopped.
        """
        from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

        if self._field is None:
            self._field = fit_for_segmentation(
                self.volume,
                self._fit_params or replace(FIT_PARAMS, threads=self.threads),
                working_voxels=self._need().settings.params.working_voxels,
                progress=progress,
                should_stop=should_stop,
            )
        return self._field

    def prepare(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> None:
        """Do what needs no prompts: fit the field unless there is one, build the solver's graph.

        :meth:`result` does it when first called.

        Parameters
        ----------
        progress, should_stop : callable, optional

        Raises
        ------
        MedGSError
            For an unusable image or field.
        MemoryEstimateError
            Before work starts, when it would not fit into the free memory.
        Cancelled
            When stopped; a field that was fitted until then stays.
        """
        if self.is_prepared:
            return
        from napari_medgs.segmentation.large_model import segment_model
        from napari_medgs.segmentation.memory import check_memory

        volume, params = self.volume, self._need().settings.params
        gaussians = None if self._fit_params is None else self._fit_params.gaussians
        check_memory(volume, params, field=self._field, gaussians=gaussians)
        field = self.fit_field(progress=progress, should_stop=should_stop)
        progress(ProgressEvent("Preparing the segmentation", 0, 0, 0.0))
        self._model_voxels = params.working_voxels
        self._model = segment_model(
            volume,
            field,
            replace(params, threads=self.threads),
            progress=progress,
            should_stop=should_stop,
        )

    def _need_model(self) -> Model:
        if self._model is None:
            raise ParameterError("The segmentation is not prepared yet: call prepare first.")
        return self._model

    def snapshot(self) -> Snapshot:
        """Copy prompts and settings for :meth:`update`, so that they may change meanwhile.

        Returns
        -------
        Snapshot

        Raises
        ------
        ParameterError
            Before :meth:`prepare`.
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        model, session = self._need_model(), self._need()
        with self._lock:
            model.params = replace(session.settings.params, threads=self.threads)
            return model.snapshot(session.prompts())

    def update(
        self,
        snapshot: Snapshot | None = None,
        *,
        quick: bool = False,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> SegmentResult:
        """Solve without changing :attr:`labels` or the history; see :meth:`set_result`.

        Parameters
        ----------
        snapshot : Snapshot, optional
            Of :meth:`snapshot`, which is called otherwise.
        quick : bool
            Only extend the last full solve by new scribbles, where that is possible; see
            :meth:`SegmentModel.update`.
        progress, should_stop : callable, optional

        Returns
        -------
        SegmentResult

        Raises
        ------
        MedGSError
            See :meth:`snapshot`; ``Cancelled`` when stopped.
        """
        return self._need_model().update(
            self.snapshot() if snapshot is None else snapshot,
            quick=quick,
            progress=progress,
            should_stop=should_stop,
        )

    def set_result(self, result: SegmentResult, *, is_current: bool = True) -> Delta:
        """Make a result of :meth:`update` the current one, which undo and redo bring back.

        Parameters
        ----------
        result : SegmentResult
        is_current : bool
            False where the prompts have changed since. An incremental result never is current.

        Returns
        -------
        Delta
            What changed in :attr:`labels`.
        """
        with self._lock:
            self._result = result
            return self._need().set_result(
                result, is_current=is_current and not result.incremental
            )

    def preview_slice(self, axis: int, index: int) -> NDArray[Any] | None:
        """Return the labels of one slice ahead of a solve, with the terms fitted in the last one.

        Parameters
        ----------
        axis, index : int
            The slice, on the canonical grid.

        Returns
        -------
        2D array of int, or None
            None where classes are new, so that it would take as long as a solve.

        Raises
        ------
        MedGSError
            See :meth:`snapshot`.
        """
        model, session, frozen = self._need_model(), self._need(), None
        with self._lock:
            prompts = session.prompts()
            last, snapshot = model.last, model.snapshot(prompts)
            if last is None or snapshot.values != last.values:
                return None
            locked = sorted(prompts.locked)
            if locked and prompts.result is not None:
                frozen = np.take(prompts.result, index, axis=axis)
        labels = model.preview_slice(axis, index, snapshot)
        if frozen is not None:
            labels = np.where(np.isin(labels, locked), 0, labels)
            labels = np.where(frozen > 0, frozen, labels)
        return labels

    def uncertainty(self) -> NDArray[np.float32]:
        """Return the probability that each voxel's label is wrong, (Z, Y, X), 0 to 1."""
        return self.result().uncertainty()

    def suggest(
        self, count: int = 1, axis: int | None = None, *, update: bool = True
    ) -> list[Suggestion]:
        """Return the slices where one more scribble helps most, best first.

        Parameters
        ----------
        count : int
        axis : int, optional
            Orientation of the slices; that of the scribbles by default.
        update : bool
            False to judge by the last solve, though prompts may have changed since.

        Raises
        ------
        MedGSError
            Without a result; see :meth:`result`.
        """
        if update:
            self.result()
        return self._need_model().suggest(count, axis)

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
        return cls.from_session(session, volume, field=field)

    # Helpers

    def _need(self) -> Session:
        if self._session is None:
            raise ParameterError("There is no image yet: call set_image first.")
        return self._session


def _check_field(field: GaussianField, volume: Volume) -> None:
    if not field.info.grid.matches(volume.grid):
        raise GeometryError(
            "The field was fitted on another grid than the image's; fit it to this image."
        )


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
