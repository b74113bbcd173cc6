"""Images of other grids as contrasts: brought onto one grid, as layers of their own. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.orientation import SPL
from napari_medgs.errors import GeometryError, MedGSError
from napari_medgs.plugin.file_names import file_of
from napari_medgs.plugin.layer_frame import (
    LayerFrame,
    array_of,
    check_layer,
    frame_in_world,
    frame_of,
    geometry_kwargs,
    same_place,
)
from napari_medgs.plugin.layer_metadata import SOURCE_KEY
from napari_medgs.plugin.layer_orientation import is_assumed, place_metadata, unit_scale


def others_of(layers: Sequence[Any], reference: Any) -> list[Any]:
    """Return the images that do not share a reference's grid; none where one is no contrast."""
    try:
        for layer in layers:
            check_layer(layer)
    except MedGSError:
        return []  # refused for what it is, by what takes the images
    return [x for x in layers if x is not reference and not same_place(reference, x)]


@dataclass(frozen=True)
class ResampleImages:
    """Bring images onto the grid of another one, linearly and by their place in the patient.

    Attributes
    ----------
    sources : tuple of napari.layers.Image
    frames : tuple of LayerFrame
        Of the sources.
    reference : napari.layers.Image
    like : LayerFrame
        Of the reference.
    """

    sources: tuple[Any, ...]
    frames: tuple[LayerFrame, ...]
    reference: Any
    like: LayerFrame

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> list[tuple[NDArray[Any], list[str]]]:
        """Return for each image its array in the reference's axes, and what to know of it."""
        from napari_medgs.data.resampling import resampled_volume
        from napari_medgs.data.volume import Volume

        made = []
        for number, (layer, frame) in enumerate(zip(self.sources, self.frames, strict=True)):
            progress(ProgressEvent("resample", number, len(self.sources), 0.0))
            data = np.ascontiguousarray(frame.to_canonical(array_of(layer)))
            volume, texts = resampled_volume(
                Volume(data[None], frame.grid, (layer.name,)),
                self.like.grid,
                name=f"'{layer.name}'",
                like_name=f"'{self.reference.name}'",
                should_stop=should_stop,
            )
            made.append((self.like.to_layer(volume.data[0]), texts))
        return made


def resample_job(sources: Sequence[Any], reference: Any) -> ResampleImages:
    """Return the job that brings images onto the grid of another one.

    Parameters
    ----------
    sources : sequence of napari.layers.Image
    reference : napari.layers.Image

    Raises
    ------
    GeometryError
        Where it is not known how an image lies to the reference.
    ImageError
        For layers that are no contrasts.
    """
    frames = [_frames(layer, reference) for layer in sources]
    return ResampleImages(tuple(sources), tuple(own for own, _ in frames), reference, frames[0][1])


def _frames(layer: Any, reference: Any) -> tuple[LayerFrame, LayerFrame]:
    """Return the frames of two layers in one world."""
    if layer.ndim != reference.ndim:
        flat, deep = sorted((layer, reference), key=lambda x: x.ndim)
        raise GeometryError(
            f"{flat.name!r} is a flat picture and {deep.name!r} a volume: they cannot be "
            "contrasts of one image."
        )
    own, like = frame_of(layer), frame_of(reference)
    known = [not is_assumed(frame.grid) for frame in (own, like)]
    if not any(known):  # both lie in the viewer's world; one in pixels takes the other's unit
        return (
            frame_in_world(layer, SPL, {}, unit=unit_scale(reference)),
            frame_in_world(reference, SPL, {}, unit=unit_scale(layer)),
        )
    if not all(known):
        lost = reference if known[0] else layer
        raise GeometryError(
            f"It is not known how {lost.name!r} lies in the patient, so that nothing can be "
            "resampled to it or from it: open its file with the Load widget, or with MedGS where "
            "napari asks for a reader."
        )
    return own, like


def add_resampled(
    viewer: Any, job: ResampleImages, made: Sequence[tuple[NDArray[Any], list[str]]]
) -> dict[Any, Any]:
    """Add resampled images above those that they were made of, which are hidden.

    Parameters
    ----------
    viewer : napari.Viewer
    job : ResampleImages
    made : sequence of (ndarray, list of str)
        What the job returned.

    Returns
    -------
    dict
        The new layer of each image.
    """
    from napari.layers import Image

    found = {}
    for source, (data, _) in zip(job.sources, made, strict=True):
        metadata = {**place_metadata(job.reference), SOURCE_KEY: source.name}
        path = file_of(source)
        if path is not None:
            metadata["path"] = str(path)
        layer = Image(
            data,
            name=f"{source.name} · resampled to {job.reference.name}",
            colormap=source.colormap,
            contrast_limits=source.contrast_limits,
            gamma=source.gamma,
            opacity=source.opacity,
            blending=source.blending,
            visible=source.visible,
            metadata=metadata,
            **geometry_kwargs(job.reference),
        )
        viewer.layers.insert(viewer.layers.index(source) + 1, layer)
        source.visible = False
        found[source] = layer
    return found


def voxel_text(layer: Any) -> str:
    """Return a layer's name with the size of its voxels."""
    try:
        spacing = frame_of(layer).grid.spacing
    except MedGSError:
        return str(layer.name)
    return f"{layer.name} · {' x '.join(f'{s:.3g}' for s in spacing[3 - layer.ndim :])} mm"
