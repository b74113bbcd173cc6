"""Volumes for the demo: real data where there are some, else a synthetic head."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError

DATA_VARIABLE = "MEDGS_TEST_DATA"


@dataclass(frozen=True)
class DemoCase:
    """An image with a mask.

    Attributes
    ----------
    title : str
    volume : Volume
    labels : (Z, Y, X) integer ndarray
    names : dict of int to str
    opaque, transparent : tuple of int
        Labels whose surfaces are drawn opaque and transparent.
    skin : bool
        Draw the outline of the whole image around them.
    """

    title: str
    volume: Volume
    labels: NDArray[Any]
    names: dict[int, str]
    opaque: tuple[int, ...]
    transparent: tuple[int, ...] = ()
    skin: bool = False


def choose_case(name: str = "auto") -> DemoCase:
    """Return a case by name, or the first of glioma, mni152 and phantom that is available.

    Parameters
    ----------
    name : str
        One of ``CASES``, or "auto".

    Returns
    -------
    DemoCase

    Raises
    ------
    FileError
        When the named case is not available; the message says how to get it.
    """
    if name != "auto":
        return CASES[name]()
    for loader in (glioma, mni152):
        try:
            return loader()
        except FileError:
            continue
    return phantom()


def glioma() -> DemoCase:
    """Return a contrast-enhanced T1 of a brain with glioma from the folder of real volumes.

    Raises
    ------
    FileError
        When the environment variable MEDGS_TEST_DATA names no folder that holds it.
    """
    from napari_medgs.io import read_labels, read_volume

    folder = Path(os.environ.get(DATA_VARIABLE, "")) / "mr_brats4_glioma"
    if DATA_VARIABLE not in os.environ or not folder.is_dir():
        raise FileError(
            f"The glioma case was not found: set {DATA_VARIABLE} to the folder that holds "
            "mr_brats4_glioma/t1c.nii.gz and seg_brats23.nii.gz."
        )
    volume = read_volume(folder / "t1c.nii.gz")
    labels, _ = read_labels(folder / "seg_brats23.nii.gz", volume.grid)
    names = {1: "necrotic core", 2: "edema", 3: "enhancing tumor"}
    return DemoCase(
        "Glioma, T1 with contrast agent", volume, labels, names, (1, 3), (2,), skin=True
    )


def mni152() -> DemoCase:
    """Return the MNI152 brain with gray and white matter, from nilearn's own files.

    Raises
    ------
    FileError
        When nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise FileError(
            "The MNI152 brain comes with nilearn: pip install napari-medgs[sample]"
        ) from error
    template = datasets.load_mni152_template(resolution=1)
    labels = np.zeros(template.shape, np.uint8)
    for value, load in ((1, datasets.load_mni152_gm_mask), (2, datasets.load_mni152_wm_mask)):
        labels[np.asarray(load(resolution=1).dataobj) > 0] = value
    affine = np.asarray(template.affine, dtype=np.float64)
    volume = Volume.from_axes(
        np.asarray(template.dataobj, np.float32)[None], affine, channel_names=("MNI152 T1",)
    )
    mask = Volume.from_axes(labels[None], affine).channel(0)
    return DemoCase(
        "MNI152 brain, T1", volume, mask, {1: "gray matter", 2: "white matter"}, (2,), (1,)
    )


def phantom() -> DemoCase:
    """Return the synthetic head."""
    from napari_medgs.data.phantom import make_phantom

    head = make_phantom(1.5)
    volume = Volume(head.image[None], head.grid, ("phantom",))
    names = {value: name for value, name in head.names.items() if value}
    return DemoCase("Synthetic head", volume, head.labels, names, (6, 7), (5, 1))


CASES: dict[str, Callable[[], DemoCase]] = {
    "glioma": glioma,
    "mni152": mni152,
    "phantom": phantom,
}
