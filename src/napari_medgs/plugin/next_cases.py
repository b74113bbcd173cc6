"""Which image comes next: the next of its folder, or the next in the order of Learn. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_medgs.errors import MedGSError


class CaseOrder:
    """The order in which images are to be annotated, if there is one.

    Attributes
    ----------
    files : tuple of str
        The first one next; empty where folders are gone through by name.
    """

    def __init__(self) -> None:
        self.files: tuple[str, ...] = ()


ORDER = CaseOrder()


def images_beside(path: Path) -> list[Path]:
    """Return the images in the folder of one, in order; masks are left out.

    Parameters
    ----------
    path : Path
        A file, or a folder of slices.

    Returns
    -------
    list of Path
        Empty where the folder cannot be read.
    """
    from napari_medgs.io.cases import find_cases
    from napari_medgs.io.formats import image_stem
    from napari_medgs.io.labels import is_mask_name

    try:
        found = [Path(case.images[0]) for case in find_cases(path.parent)]
    except MedGSError:
        return []
    return [p for p in found if p == path or not is_mask_name(image_stem(p))]


def next_image(path: Path, kept: set[str], order: Sequence[str] = ()) -> Path | None:
    """Return the next image of a folder that is not kept yet.

    That is the next of an order, if it has some of that folder; else the next by name. After the
    last one comes the first.

    Parameters
    ----------
    path : Path
        Of the image that is open.
    kept : set of str
        Files of the cases that are finished.
    order : sequence of str, optional
        Files, the first one next.
    """
    images = images_beside(path)
    if path not in images:
        return None
    for listed in ([p for p in map(Path, order) if p in images], images):
        k = listed.index(path) if path in listed else -1
        after = listed[k + 1 :] + listed[: max(k, 0)]
        found = next((p for p in after if str(p) not in kept), None)
        if found is not None:
            return found
    return None


def kept_files(place: Path | None) -> set[str]:
    """Return the files of all cases that a folder of cases holds."""
    from napari_medgs.segmentation import CaseStore

    kept: set[str] = set()
    if place is None:
        return kept
    store = CaseStore(place)
    for name in store.names:
        try:
            kept |= set(store.record(name).images)
        except MedGSError:
            continue
    return kept
