"""Where a NIfTI image lies: by its sform or its qform, and how far apart the two are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.orientation import is_usable
from napari_medgs.errors import GeometryError

_SPACE_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
_SPACES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI 152", 5: "template"}
_VOXELS_APART = 0.1
_EXTENT_APART = 1e-3  # what the rounding of a quaternion does to a half turn


@dataclass(frozen=True)
class FormsApart:
    """How the sform and the qform of a file disagree.

    Attributes
    ----------
    mm : float
        Largest distance between the two places of a corner of the image.
    mirrored : bool
        Whether one of them is a mirror image of the other.
    """

    mm: float
    mirrored: bool


def header_affine(
    path: str | Path,
    header: Any,
    shape: tuple[int, ...],
    *,
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
) -> tuple[NDArray[np.float64], bool]:
    """Return a file's affine (i, j, k, 1) to RAS mm, and whether it had to be assumed.

    The sform counts before the qform; a warning says so where they place the image differently.
    Lengths are converted when the file says meters or micrometers.

    Raises
    ------
    GeometryError
        When there is no usable affine and neither a spacing nor ``assume_identity`` is given, or
        a spacing contradicts the file's.
    """
    factor = _SPACE_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    scale = np.diag([factor, factor, factor, 1.0])
    declared: list[tuple[str, NDArray[np.float64] | None]] = []
    if int(header["sform_code"]) > 0:
        declared.append(("sform", _sform(header)))
    if int(header["qform_code"]) > 0:
        declared.append(("qform", _qform(header)))
    usable = [(name, a) for name, a in declared if a is not None and is_usable(a)]
    if usable:
        name, affine = usable[0]
        if name != declared[0][0]:
            warnings.warn(f"{path}: the sform is singular; the qform is used.", stacklevel=3)
        apart = forms_apart(header, shape)
        if apart is not None:
            _warn_apart(path, header, apart)
        affine = scale @ affine
        if spacing is not None:
            own = np.linalg.norm(affine[:3, :3], axis=0)
            if not np.allclose(sorted(own), sorted(spacing), rtol=1e-3):
                raise GeometryError(
                    f"{path}: has its own spacing {_times(own)} mm, which the spacing "
                    f"{_times(np.asarray(spacing))} contradicts. A spacing is only for files "
                    "without geometry."
                )
        return affine, False
    why = (
        "its affine is singular" if declared else "it has no affine (sform and qform are not set)"
    )
    if spacing is not None:
        z, y, x = (float(s) for s in spacing)
        sizes = np.array([x, y, z])
    elif assume_identity:
        pixdim = np.asarray(header["pixdim"], dtype=np.float64)[1:4]
        good = np.isfinite(pixdim) & (pixdim > 0)
        sizes = np.where(good, np.where(good, pixdim, 1.0) * factor, 1.0)
        warnings.warn(
            f"{path}: {why}; orientation RAS and {_times(sizes)} mm voxels are assumed.",
            stacklevel=3,
        )
    else:
        raise GeometryError(
            f"{path}: {why}, so its place and voxel size are unknown. Give the spacing in mm, or "
            "allow an assumed identity orientation."
        )
    return np.diag([*sizes, 1.0]), True


def forms_apart(header: Any, shape: tuple[int, ...]) -> FormsApart | None:
    """Return how far apart sform and qform place an image.

    Parameters
    ----------
    header : nibabel header
    shape : tuple of int
        2 to 4 sizes.

    Returns
    -------
    FormsApart or None
        None where only one of them is set and usable, or corners are apart by no more than a
        tenth of a voxel or a thousandth of the image's diagonal, as rounding makes them.
    """
    if not (int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0):
        return None
    sform, qform = _sform(header), _qform(header)
    if qform is None or not (is_usable(sform) and is_usable(qform)):
        return None
    last = np.array((*shape[:3], 1)[:3]) - 1
    corners = np.array(np.meshgrid(*[(0, n) for n in last])).reshape(3, -1)
    linear = sform[:3, :3] - qform[:3, :3]
    moved = linear @ corners + (sform[:3, 3] - qform[:3, 3])[:, None]
    apart = float(np.linalg.norm(moved, axis=0).max())
    voxel = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    diagonal = float(np.linalg.norm(sform[:3, :3] @ last))
    mirrored = bool(np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0)
    if apart <= max(_VOXELS_APART * voxel, _EXTENT_APART * diagonal):
        return None
    factor = _SPACE_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return FormsApart(apart * factor, mirrored)


def _warn_apart(path: str | Path, header: Any, apart: FormsApart) -> None:
    spaces = [_SPACES.get(int(header[f"{f}form_code"]), "unknown space") for f in "sq"]
    mirrored = " and as mirror images" if apart.mirrored else ""
    warnings.warn(
        f"{path}: sform ({spaces[0]}) and qform ({spaces[1]}) place the image up to "
        f"{apart.mm:.3g} mm apart{mirrored}; the sform is used. Programs that prefer the qform "
        "show it elsewhere.",
        stacklevel=4,
    )


def _sform(header: Any) -> NDArray[np.float64]:
    rows = [np.asarray(header[f"srow_{c}"], dtype=np.float64) for c in "xyz"]
    return np.vstack([*rows, [0, 0, 0, 1]])


def _qform(header: Any) -> NDArray[np.float64] | None:
    """Return the qform as nibabel does when it loads a file, None where it is damaged.

    Voxel sizes count without their sign, and a qfac other than -1 as 1.
    """
    from nibabel.spatialimages import HeaderDataError

    plain = header.copy()
    sizes = np.asarray(header["pixdim"], dtype=np.float64)
    plain["pixdim"][0] = -1 if sizes[0] == -1 else 1
    plain["pixdim"][1:4] = np.abs(sizes[1:4])
    try:
        return np.asarray(plain.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError, FloatingPointError):
        return None


def _times(sizes: NDArray[Any]) -> str:
    return " x ".join(f"{s:.4g}" for s in sizes)
