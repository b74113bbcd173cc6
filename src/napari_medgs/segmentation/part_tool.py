"""Clicks on parts: a part of the image, chosen by a click, becomes the mask to refine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.errors import Cancelled, LabelError, ParameterError
from napari_medgs.segmentation.prompts.coordinates import to_voxels
from napari_medgs.segmentation.prompts.kinds import check_label

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.hierarchy import PartParams, PartSelection, PartTree
    from napari_medgs.segmentation.interactive import InteractiveSegmenter

POLL_SECONDS = 0.05


class PartTool:
    """Finds parts at places of a segmenter's image, and makes them the start of a mask.

    Reached as ``segmenter.parts``. The tree of parts is made when first needed, and kept as long
    as the field. Hovering is :meth:`at` with :meth:`PartTree.outline
    <napari_medgs.hierarchy.PartTree.outline>`; the wheel is
    :meth:`PartSelection.larger <napari_medgs.hierarchy.PartSelection.larger>` and ``smaller``; a
    click is :meth:`add`.

    Parameters
    ----------
    segmenter : InteractiveSegmenter
    lock : context manager
        Guards its prompts.

    Attributes
    ----------
    params : PartParams or None
        Of the next tree that is made.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).normal(size=(6, 24, 24)).astype(np.float32)
    >>> image[1:5, 6:18, 6:18] += 20
    >>> segmenter = mg.InteractiveSegmenter()
    >>> segmenter.set_image(mg.Volume.from_array(image))
    >>> part = segmenter.parts.at((3, 12, 12))
    >>> segmenter.parts.add(1, part)
    True
    >>> bool(segmenter.labels[3, 12, 12] == 1)
    True
    >>> segmenter.undo().kind, bool(segmenter.labels.any())
    ('part', False)
    """

    def __init__(self, segmenter: InteractiveSegmenter, lock: AbstractContextManager[Any]) -> None:
        self._segmenter, self._lock = segmenter, lock
        self._tree: PartTree | None = None
        self._field: Any = None  # the one that the tree was made from
        self._making = Lock()
        self.params: PartParams | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is a tree, so that :meth:`at` answers at once."""
        return self._tree is not None and self._field is self._segmenter.field

    def tree(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> PartTree:
        """Return the tree of parts, made unless there is one; the field is fitted first.

        Parameters
        ----------
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        PartTree

        Raises
        ------
        MedGSError
            For an unusable image or field.
        Cancelled
            When stopped.
        """
        if self._tree is not None and self.is_ready:
            return self._tree
        # Another thread may be making it: then its tree is waited for.
        while not self._making.acquire(timeout=POLL_SECONDS):
            if should_stop():
                raise Cancelled("The making of parts was canceled.")
        try:
            if self._tree is None or not self.is_ready:
                self._tree, self._field = self._make(progress, should_stop)
            return self._tree
        finally:
            self._making.release()

    def _make(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> tuple[PartTree, GaussianField]:
        from dataclasses import replace

        from napari_medgs.hierarchy import PartParams, part_tree

        segmenter = self._segmenter
        field = segmenter.fit_field(progress=progress, should_stop=should_stop)
        params = replace(self.params or PartParams(), threads=segmenter.threads)
        tree = part_tree(
            segmenter.volume,
            field=field,
            params=params,
            progress=progress,
            should_stop=should_stop,
        )
        return tree, field

    def set_tree(self, tree: PartTree) -> None:
        """Use a tree that was made before, such as one from a field file.

        Parameters
        ----------
        tree : PartTree
            Of the segmenter's field.

        Raises
        ------
        ParameterError
            When it belongs to another field, or the segmenter has no field yet.
        """
        from napari_medgs.hierarchy import field_digest

        field = self._segmenter.field
        if field is None:
            raise ParameterError("The segmenter has no field yet; set it with the image.")
        if tree.field_digest != field_digest(field):
            raise ParameterError(
                "The tree of parts belongs to another field; make it anew from this one."
            )
        self._tree, self._field = tree, field

    def at(
        self,
        *positive: Sequence[float],
        negative: Iterable[Sequence[float]] = (),
        world: bool = False,
    ) -> PartSelection:
        """Return the part at one or several places.

        Parameters
        ----------
        *positive : (z, y, x) in voxels, or (x, y, z) in RAS mm with ``world``
            Places in the part.
        negative : iterable of places
            Outside of it.
        world : bool

        Returns
        -------
        PartSelection

        Raises
        ------
        GeometryError
            When a place lies outside of the image.
        ParameterError
            Without a positive place, or when places of both kinds share a cell.
        """
        grid = self._segmenter.session.grid
        inside = [to_voxels(grid, [place], world)[0].tolist() for place in positive]
        outside = [to_voxels(grid, [place], world)[0].tolist() for place in negative]
        return self.tree().at(*inside, negative=outside)

    def inferred(
        self,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> NDArray[Any] | None:
        """Return a provisional mask where strokes and points mark one class and no background.

        It is the part that the marks mean; what surrounds it is taken for background.

        Parameters
        ----------
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        (Z, Y, X) ndarray of int or None
            None where the prompts say more, or nothing: they are to be solved then.

        Raises
        ------
        MedGSError
            For an unusable image or field.
        Cancelled
            When stopped.

        Examples
        --------
        >>> import numpy as np
        >>> import napari_medgs as mg
        >>> image = np.random.default_rng(0).normal(size=(6, 24, 24)).astype(np.float32)
        >>> image[1:5, 6:18, 6:18] += 20
        >>> segmenter = mg.InteractiveSegmenter()
        >>> segmenter.set_image(mg.Volume.from_array(image))
        >>> segmenter.add_scribble(3, [(3, 10, 10), (3, 14, 14)])
        True
        >>> mask = segmenter.parts.inferred()
        >>> int(mask[3, 12, 8]), int(mask[3, 2, 2])
        (3, 0)
        """
        from napari_medgs.segmentation.prompts.inferred import fit_stroke

        session = self._segmenter.session
        settings, strokes = session.settings, session.strokes
        more = (session.initial, session.prior, session.locked_labels)
        if settings.boxes or settings.fully_labeled or any(x is not None for x in more):
            return None
        marked = np.argwhere(strokes != settings.unlabeled)
        values = {int(v) for v in np.unique(strokes[tuple(marked.T)])}
        values |= {p.label if p.positive else 0 for p in settings.points}
        if len(values) != 1 or values & {0, session.prompts().background_value}:
            return None
        (label,) = values
        places = [np.floor(np.asarray(p.position) + 0.5) for p in settings.points]
        voxels = np.vstack([marked, np.reshape(places, (-1, 3))]).astype(np.int64)
        tree = self.tree(progress=progress, should_stop=should_stop)
        inside = tree.mask(fit_stroke(tree, voxels))
        inside[tuple(voxels.T)] = True
        return inside.astype(np.min_scalar_type(label)) * label

    def add(
        self, label: int, part: PartSelection, *, mask: NDArray[np.bool_] | None = None
    ) -> bool:
        """Give a part a class: it counts in the mask at once, and is where solving starts.

        Parameters
        ----------
        label : int
            From 1; several parts may have one.
        part : PartSelection
            Of :meth:`at`.
        mask : (Z, Y, X) ndarray of bool, optional
            ``tree().mask(part.nodes)``, where it was computed before.

        Returns
        -------
        bool
            False where all of it was so already.

        Raises
        ------
        LabelError
            When the label is below 1, or the part has no voxel.
        """
        if check_label(label) == 0:
            raise LabelError("A part needs a class from 1; remove(part) takes it away.")
        return self._change(part, int(label), mask)

    def remove(self, part: PartSelection, *, mask: NDArray[np.bool_] | None = None) -> bool:
        """Take a part out of the mask that solving starts from; see :meth:`add`."""
        return self._change(part, 0, mask)

    def _change(self, part: PartSelection, label: int, mask: NDArray[np.bool_] | None) -> bool:
        if mask is None:
            mask = self.tree().mask(part.nodes)
        if not mask.any():
            raise LabelError("The part has no voxel of its own here; choose a larger one.")
        record = {
            "label": label,
            "positive": [list(place) for place in part.positive],
            "negative": [list(place) for place in part.negative],
            "notch": part.level,
            "notches": len(part.levels),
            "nodes": [int(node) for node in part.nodes],
            "field": self.tree().field_digest,
        }
        session = self._segmenter.session
        with self._lock:
            return session.add_part(mask, label, record)
