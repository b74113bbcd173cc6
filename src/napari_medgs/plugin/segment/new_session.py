"""What a session of the Segment widget begins with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs.errors import LabelError, ParameterError
from napari_medgs.plugin.layer_metadata import field_of, fitted_to
from napari_medgs.plugin.layer_volumes import labels_like
from napari_medgs.plugin.segment.classes import LARGEST_VALUE
from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.session_images import path_of

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.segmentation import SegmentParams, Session


def new_session(
    context: SegmentContext,
    mask: Any | None,
    params: SegmentParams,
    unlabeled: int,
    background: int | None,
    *,
    resample: bool = False,
) -> Session:
    """Return an empty session of the context's image.

    Parameters
    ----------
    context : SegmentContext
    mask : napari.layers.Labels, optional
        A starting mask.
    params : SegmentParams
    unlabeled : int
    background : int or None
        Values of the strokes layer.
    resample : bool
        Bring a mask of another grid onto the image's voxels, by the nearest label.

    Raises
    ------
    GeometryError, LabelError
        For a mask on another grid, an empty one, and labels that no class can have.
    """
    from napari_medgs.segmentation import Session, Settings

    assert context.volume is not None
    assert context.frame is not None
    initial = None
    if mask is not None:
        initial = labels_like(mask, context.image, context.frame, resample=resample)
        for value in (int(initial.min()), int(initial.max())):
            if not 0 <= value <= LARGEST_VALUE:
                raise LabelError(
                    f"The mask {mask.name!r} holds the label {value}; labels of a mask to begin "
                    f"with go from 0 to {LARGEST_VALUE}."
                )
        initial = initial.astype(np.int32)
    session = Session(
        context.volume.grid,
        Settings(unlabeled=unlabeled, background=background, params=params),
        initial=initial,
        images=[path_of(x) for x in context.sources],
    )
    if initial is not None:
        session.set_result(initial, is_current=False)  # on show while the first solve runs
    return session


def session_again(session: Session, unlabeled: int, background: int | None) -> Session:
    """Return a session without strokes that begins as another one is now.

    Parameters
    ----------
    session : Session
        Points, boxes, complete slices, settings, mask and locks are taken from it.
    unlabeled : int
    background : int or None
        Values of the strokes layer.

    Raises
    ------
    ParameterError
        When both values are the same.
    """
    from napari_medgs.segmentation import Session

    if background == unlabeled:
        raise ParameterError("The values for unlabeled and for background must differ.")
    before = session.settings
    points = before.points
    if background is not None:
        points = tuple(
            replace(p, label=background) if p.label == before.background else p for p in points
        )
    again = Session(
        session.grid,
        replace(
            before,
            unlabeled=unlabeled,
            background=background,
            points=points,
            locked=frozenset(),
        ),
        initial=session.initial,
        images=session.images,
        names=session.names,
    )
    if session.prior is not None:
        again.set_prior(session.prior)
    again.set_result(session.labels, is_current=False)  # on show while the first solve runs
    again.update_settings(locked=before.locked)  # after the mask whose voxels are kept
    return again


def known_field(context: SegmentContext, chosen: Any | None) -> GaussianField | None:
    """Return the field to segment with, or None where one must be fitted first.

    Parameters
    ----------
    context : SegmentContext
    chosen : napari.layers.Layer or None
        A layer that carries a field; by default the newest one that was fitted to the image.
    """
    assert context.volume is not None
    if chosen is not None:
        return field_of(chosen)
    return fitted_to(context.viewer.layers, context.image, context.volume)
