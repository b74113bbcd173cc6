"""Small sample files: a synthetic head with tissue labels, a second contrast and strokes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.phantom import Phantom, make_phantom
from napari_medgs.errors import FileError, MedGSError

SPACING_MM = 2.0
BACKGROUND = 1
CLASSES = {6: "ventricles", 7: "lesion"}
STROKE_NAMES = {BACKGROUND: "background", **CLASSES}

# Like a T2-weighted scan, one intensity per label of the phantom, in arbitrary units.
_T2_INTENSITIES = (6.0, 95.0, 20.0, 235.0, 130.0, 95.0, 225.0, 170.0)
_T2_NOISE = 4.0
_SLICES = (0.2, 0.5, 0.8)  # of the extent of the classes along z
_SMALLEST_PART = 12  # pixels of a part that gets a stroke of its own
_LONGEST_STROKE = 24  # voxels
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))


def write_sample(folder: str | Path) -> dict[Path, str]:
    """Write the files that the documentation's commands and examples read.

    Parameters
    ----------
    folder : str or Path
        Is made if needed.

    Returns
    -------
    dict of Path to str
        Every file that was written with one line that says what it is: ``brain.nii.gz``,
        ``brain_t2.nii.gz``, ``labels.nii.gz`` and ``strokes.nii.gz``, the last two with the
        names of their labels in a JSON file each.

    Raises
    ------
    FileError
        When the folder cannot be made or written, or has other files of these names.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.demo.sample import write_sample
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(sorted(path.name for path in write_sample(folder))[:2])
    ['brain.nii.gz', 'brain_t2.nii.gz']
    """
    from napari_medgs.io import write_image, write_labels
    from napari_medgs.io.label_names import read_label_names, sidecar_path

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: the folder cannot be made ({error.strerror}).") from error
    head = make_phantom(SPACING_MM)
    brain, t2 = folder / "brain.nii.gz", folder / "brain_t2.nii.gz"
    labels, strokes = folder / "labels.nii.gz", folder / "strokes.nii.gz"
    images = {brain: head.image, t2: second_contrast(head)}
    masks = {labels: head.labels, strokes: draw_strokes(head.labels)}
    for path, values in (images | masks).items():
        if path.exists() and not holds(path, values):
            raise FileError(f"{path}: another file of this name is there; choose a new folder.")
    for path, names in ((labels, head.names), (strokes, STROKE_NAMES)):
        own = sidecar_path(path)
        if own.exists() and read_label_names(path) != names:
            raise FileError(f"{own}: another file of this name is there; choose a new folder.")
    for path, values in images.items():
        write_image(path, values[None], head.grid)
    write_labels(labels, masks[labels], head.grid, head.names)
    write_labels(strokes, masks[strokes], head.grid, STROKE_NAMES)
    classes = " and ".join(f"{value} {name}" for value, name in CLASSES.items())
    return {
        brain: "image: a synthetic head, like a T1-weighted scan",
        t2: "a second contrast of the same head, like a T2-weighted scan",
        labels: f"mask: all tissues, {min(head.names) + 1} to {max(head.names)}",
        sidecar_path(labels): "names of the labels in the mask",
        strokes: f"strokes on three slices: {BACKGROUND} background, {classes}; 0 is unlabeled",
        sidecar_path(strokes): "names of the labels in the strokes",
    }


def holds(path: Path, values: NDArray[Any]) -> bool:
    """Tell whether a file holds these values (Z, Y, X), as one that was written before does."""
    from napari_medgs.io import read_volume

    try:
        return np.array_equal(read_volume(path).data[0], values)
    except MedGSError:
        return False


def second_contrast(head: Phantom, seed: int = 1) -> NDArray[np.float32]:
    """Return a T2-like image of the phantom: bright fluid, Rician noise.

    Parameters
    ----------
    head : Phantom
    seed : int
        Seed of the noise.

    Returns
    -------
    (Z, Y, X) ndarray of float32
    """
    rng = np.random.default_rng(seed)
    signal = np.asarray(_T2_INTENSITIES)[head.labels]
    noise = _T2_NOISE * rng.standard_normal((2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1]).astype(np.float32)


def draw_strokes(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw short straight strokes inside the structures, on three slices.

    On each slice every connected part of a class gets one stroke, and every other tissue gets
    one as background.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of integers
        The mask of the phantom.

    Returns
    -------
    (Z, Y, X) ndarray of uint8
        0 unlabeled, 1 background, the classes with their own values.
    """
    from scipy.ndimage import label

    strokes = np.zeros(labels.shape, np.uint8)
    extent = np.flatnonzero(np.isin(labels, list(CLASSES)).any(axis=(1, 2)))
    for share in _SLICES:
        index = int(extent[round(share * (len(extent) - 1))])
        for value in np.unique(labels[index]):
            region = labels[index] == value
            if value not in CLASSES:
                strokes[index][_longest_line(region)] = BACKGROUND
                continue
            parts, count = label(region)
            for part in range(1, count + 1):
                if np.count_nonzero(parts == part) >= _SMALLEST_PART:
                    strokes[index][_longest_line(parts == part)] = value
    return strokes


def _longest_line(region: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows and columns of the longest straight line through a region's innermost point."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    start = np.array(np.unravel_index(int(depth.argmax()), depth.shape))
    # Strokes keep away from the boundary, except in structures too thin for that.
    allowed = depth > min(1.0, depth.max() / 2)
    best = start[None]
    for direction in np.array(_DIRECTIONS):
        steps = np.concatenate([_walk(allowed, start, -direction)[::-1], start[None],
                                _walk(allowed, start, direction)])  # fmt: skip
        if len(steps) > len(best):
            best = steps
    return best[:, 0], best[:, 1]


def _walk(
    allowed: NDArray[np.bool_], start: NDArray[Any], direction: NDArray[Any]
) -> NDArray[Any]:
    """Return the points from a start in one direction for as long as they are allowed."""
    step = direction / np.abs(direction).max()
    points = np.rint(start + step * np.arange(1, _LONGEST_STROKE // 2 + 1)[:, None]).astype(int)
    inside = ((points >= 0) & (points < allowed.shape)).all(axis=1)
    good = inside & allowed[tuple(np.where(inside[:, None], points, 0).T)]
    return points[: len(points) if good.all() else int(good.argmin())]
