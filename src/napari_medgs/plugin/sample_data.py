"""Sample data that need no network: a synthetic head, and the MNI152 brain of nilearn."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.report import show_failure
from napari_medgs.plugin.responsive import run_responsive

LayerData = tuple[Any, dict[str, Any], str]
TISSUES = {0: "background", 1: "gray matter", 2: "white matter"}


def phantom() -> list[LayerData]:
    """Return the synthetic head (2 mm voxels) and its seven tissues.

    Returns
    -------
    list of layer data
        An Image layer and a Labels layer, as (array, options, kind).

    Examples
    --------
    >>> image, labels = phantom()
    >>> image[0].shape == labels[0].shape, labels[2]
    (True, 'labels')
    """
    from napari_medgs.data.phantom import make_phantom
    from napari_medgs.plugin.anatomy.follower import follow_planes

    follow_planes()
    head = run_responsive(make_phantom, "Making the synthetic head")
    place = grid_kwargs(head.grid)
    metadata = place.pop("metadata")
    image = {"name": "phantom", "colormap": "gray", "metadata": dict(metadata), **place}
    labels = {
        "name": "phantom tissues",
        "opacity": 0.5,
        "visible": False,
        "metadata": {**metadata, NAMES_KEY: head.names},
        **place,
    }
    return [(head.image, image, "image"), (head.labels, labels, "labels")]


def mni152() -> list[LayerData]:
    """Return the MNI152 T1 brain at 1 mm with gray and white matter, from nilearn's own files.

    Without nilearn a notification says how to install it, and nothing is opened.

    Returns
    -------
    list of layer data
        An Image layer and a Labels layer, or nothing.
    """
    try:
        return _opened(1)
    except Exception as error:
        show_failure(error, "Opening the MNI152 brain")
        return []


def mni152_small() -> list[LayerData]:
    """Return the MNI152 brain at 2 mm, which has an eighth of the voxels; see :func:`mni152`.

    Returns
    -------
    list of layer data
    """
    try:
        return _opened(2)
    except Exception as error:
        show_failure(error, "Opening the MNI152 brain")
        return []


def _opened(resolution: int) -> list[LayerData]:
    from napari_medgs.plugin.anatomy.follower import follow_planes

    follow_planes()
    return run_responsive(partial(mni152_layers, resolution), "Opening the MNI152 brain")


def mni152_layers(resolution: int) -> list[LayerData]:
    """Return the MNI152 brain and its tissues at a resolution in whole millimeters.

    Raises
    ------
    FileError
        When nilearn is not installed.
    """
    from napari_medgs.data.volume import Volume
    from napari_medgs.errors import FileError

    try:
        from nilearn import datasets
    except ImportError as error:
        raise FileError(
            "This sample comes with nilearn, which is not installed: "
            "pip install napari-medgs[sample]"
        ) from error
    template = datasets.load_mni152_template(resolution=resolution)
    gray = np.asarray(datasets.load_mni152_gm_template(resolution=resolution).dataobj)
    white = np.asarray(datasets.load_mni152_wm_template(resolution=resolution).dataobj)
    # Probabilities: nilearn's own masks begin at 0.2 and overlap.
    tissues = np.where(white > gray, 2, 1).astype(np.uint8)
    tissues[np.maximum(gray, white) < 0.5 * max(gray.max(), white.max())] = 0
    affine = np.asarray(template.affine, dtype=np.float64)
    image = Volume.from_axes(np.asarray(template.dataobj, np.float32)[None], affine)
    mask = Volume.from_axes(tissues[None], affine)
    place = grid_kwargs(image.grid)
    metadata = place.pop("metadata")
    first = {"name": "MNI152 T1", "colormap": "gray", "metadata": dict(metadata), **place}
    second = {
        "name": "MNI152 tissues",
        "opacity": 0.5,
        "visible": False,
        "metadata": {**metadata, NAMES_KEY: dict(TISSUES)},
        **place,
    }
    return [(image.channel(0), first, "image"), (mask.channel(0), second, "labels")]
