"""Interactive segmentation as one object: set an image, add prompts, ask for the mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from napari_medgs.errors import GeometryError
from napari_medgs.segmentation.interaction.editing import Editing
from napari_medgs.segmentation.interaction.prompting import Prompting
from napari_medgs.segmentation.interaction.solving import Solving
from napari_medgs.segmentation.interaction.state import as_volume
from napari_medgs.segmentation.params import SegmentParams

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams
    from napari_medgs.segmentation.object_tool import ObjectTool
    from napari_medgs.segmentation.part_tool import PartTool
    from napari_medgs.segmentation.session.session import Session

UNLABELED, BACKGROUND = -1, 0


class InteractiveSegmenter(Prompting, Editing, Solving):
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
        super().__init__(params, fit_params=fit_params)

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

        volume = as_volume(image, spacing, affine)
        volume = volume.prepared()
        if field is not None:
            field.check_grid(volume.grid)
        settings = Settings(unlabeled=UNLABELED, background=BACKGROUND, params=self._params)
        images = [str(image)] if isinstance(image, (str, Path)) else []
        self._start(volume, Session(volume.grid, settings, images=images), field)

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
            field.check_grid(volume.grid)
        segmenter = cls(session.settings.params, fit_params=fit_params)
        segmenter._start(volume.prepared(), session, field)
        return segmenter

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

        Nothing is computed: masks of earlier solves are not in the file. Call :meth:`result` for
        the mask of all prompts, which gives the saved session's one; :attr:`labels` are 0 before,
        or the mask that was set or kept last.

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

        volume = as_volume(image, spacing, affine)
        session, _ = load_session(path, volume.grid)
        return cls.from_session(session, volume, field=field)
