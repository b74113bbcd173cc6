"""Edits of the mask of an interactive segmenter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.segmentation.interaction.state import SegmenterState

if TYPE_CHECKING:
    from napari_medgs.segmentation.postprocess.class_edits import ClassEdit
    from napari_medgs.segmentation.postprocess.scissors import Cut


class Editing(SegmenterState):
    """Masks that are set, kept, edited, cut and locked."""

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

    def keep_mask(self) -> bool:
        """Keep the present mask from now on, as one step: later prompts correct it near them.

        Without it, every solve learns anew from all prompts. That improves a mask that is far
        off, and may change it far from a correction. A kept mask stays as :meth:`set_initial`
        says. ``set_initial(None)`` ends this, and so does undo.

        Returns
        -------
        bool
            False where just this mask was kept.

        Raises
        ------
        ParameterError
            When :attr:`labels` hold no mask, or one class everywhere.

        Examples
        --------
        >>> import numpy as np
        >>> import napari_medgs as mg
        >>> image = np.zeros((4, 12, 12), np.float32)
        >>> image[:, 3:9, 3:9] = 100
        >>> segmenter = mg.InteractiveSegmenter()
        >>> segmenter.set_image(image)
        >>> _ = segmenter.add_scribble(1, [(1, 6, 4), (1, 6, 7)])
        >>> _ = segmenter.add_scribble(0, [(1, 1, 1), (1, 1, 10)])
        >>> mask = segmenter.result().labels
        >>> segmenter.keep_mask(), segmenter.keep_mask()
        (True, False)
        >>> bool((segmenter.result().labels == mask).all())
        True
        """
        session = self._need()
        with self._lock:
            labels = session.labels
            if int(labels.min()) == int(labels.max()):
                raise ParameterError(
                    "There is no mask to keep yet."
                    if not labels.any()
                    else "The mask has one class everywhere: there is nothing to keep."
                )
            if session.initial is not None and np.array_equal(session.initial, labels):
                return False
            session.set_mask(labels.astype(np.min_scalar_type(int(labels.max()))))
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
