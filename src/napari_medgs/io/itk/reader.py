"""NRRD, MetaImage and GIPL images as canonical volumes; LPS geometry turned into RAS."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.orientation import is_usable
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.fourth_axis import (
    FourthAxis,
    Says,
    chosen_entries,
    entry_names,
    fourth_axis,
)
from napari_medgs.io.itk.headers import (
    TextHeader,
    brief,
    check_gipl,
    check_nrrd,
    time_as_list,
)
from napari_medgs.io.itk.meta_header import check_meta, read_meta_header

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SPACES = ("RAS", "LAS", "LPS", "RIGHT-ANTERIOR-SUPERIOR", "LEFT-ANTERIOR-SUPERIOR",
           "LEFT-POSTERIOR-SUPERIOR")  # fmt: skip


_UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), 1e-3),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre"), 1e3),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
}


@contextmanager
def no_itk_warnings() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; the errors raised here say what matters."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def is_itk_image(path: str | Path) -> bool:
    """Tell by its name whether a path is meant to be an NRRD, MetaImage or GIPL file."""
    return str(path).lower().endswith(SUFFIXES)


def read_itk(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read an NRRD, MetaImage or GIPL image of 2, 3 or 4 axes.

    A fourth axis, or the components of each voxel, become channels, or are volumes in time.

    Parameters
    ----------
    path : str or Path
        ``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``, ``.gipl`` or ``.gipl.gz``.
    spacing : (z, y, x) in mm, optional
        For an NRRD file without ``space directions``, whose axes are then taken to run to left,
        posterior and superior.
    assume_identity : bool
        Take such a file with the voxel size of its header, and warn.
    volume, every
        See :func:`~napari_medgs.io.nifti.reader.read_nifti`.

    Returns
    -------
    Volume
        In the file's dtype.

    Raises
    ------
    FileError
        When the file is missing, truncated, damaged or of another format.
    ImageError
        When it holds complex numbers or other than 2 to 4 axes, or several volumes in time and
        none is chosen.
    ParameterError
        When there is no such volume.
    GeometryError
        When it does not say where it lies.
    MemoryEstimateError
        When it would not fit into memory.
    """
    path = Path(path)
    header = check_itk(path)
    unplaced = not _is_placed(path, header)
    with no_itk_warnings(), time_as_list(path, header) as stored:
        reader = _open(stored, path)
        _check_image(path, reader)
        axis = itk_axis(reader, header)
        taken = chosen_entries(path, axis, volume, every)
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise FileError(f"{path}: truncated or damaged; {_reason(error)}") from error
    data = _channels_first(image)[taken]
    affine = itk_affine(image)
    affine[:3] *= _millimeters(path, header)
    if header is not None and not unplaced and "space origin" not in header.fields:
        warnings.warn(
            f"{path}: does not say where its first voxel lies (no space origin): 0 0 0 is taken, "
            "and places in mm hold among files of one origin only.",
            stacklevel=3,
        )
    if not is_usable(affine):
        raise FileError(f"{path}: damaged header: its axes or voxel sizes are unusable.")
    if unplaced:
        affine = _assumed_affine(path, affine, spacing, assume_identity)
    elif spacing is not None:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.allclose(sorted(own), sorted(spacing), rtol=1e-3):
            sizes = " x ".join(f"{s:.4g}" for s in own)
            raise GeometryError(
                f"{path}: has its own spacing {sizes} mm, which the given one contradicts. A "
                "spacing is only for files without geometry."
            )
    lower = path.name.lower()
    stem = path.name[: -max(len(s) for s in SUFFIXES if lower.endswith(s))]
    source: dict[str, Any] = {"kind": "itk", "assumed": bool(unplaced)}
    if every:
        source |= axis.to_source()
    return Volume.from_axes(
        data, affine, channel_names=entry_names(stem, axis, taken), source=source
    )


def itk_axis(reader: Any, header: TextHeader | None) -> FourthAxis:
    """Return what the fourth axis or the components of an image hold.

    Parameters
    ----------
    reader : SimpleITK.ImageFileReader
        That has read the header.
    header : TextHeader or None
        Of an NRRD file. An axis of the kind "time", and what 3D Slicer writes into its sequences,
        say that there are volumes; components of the kinds "vector", "matrix" or color are
        channels.

    References
    ----------
    https://teem.sourceforge.net/nrrd/format.html#kinds
    """
    components = int(reader.GetNumberOfComponents())
    size = reader.GetSize()
    count = components if components > 1 else int(size[3]) if len(size) > 3 else 1
    if header is None:  # MetaImage: components of a voxel are channels
        return fourth_axis(count, "channels" if components > 1 else None)
    kinds = header.fields.get("kinds", "").lower().replace('"', "").split()
    # The one axis that is none of space.
    kind = next((k for k in kinds if k not in ("space", "domain")), "")
    sequence = any(
        key.lower().startswith(("axis 0 index", "multivolume.", "datanodeclassname"))
        for key in header.metadata
    )
    says: Says = None
    if kind == "time" or sequence:
        says = "volumes"
    elif kind not in ("", "list", "???", "none"):
        says = "channels"
    return fourth_axis(count, says)


def check_itk(path: Path) -> TextHeader | None:
    """Check a file's header and sizes by its suffix; return an NRRD header.

    Raises
    ------
    FileError
        When the file is missing, truncated, damaged or of another format.
    """
    lower = path.name.lower()
    if lower.endswith((".nrrd", ".nhdr")):
        return check_nrrd(path)
    if lower.endswith((".mha", ".mhd")):
        check_meta(path)
    else:
        check_gipl(path)
    return None


def itk_affine(image: Any) -> NDArray[np.float64]:
    """Return the affine (i, j, k, 1) to RAS mm of a SimpleITK image or reader.

    Parameters
    ----------
    image : SimpleITK.Image or SimpleITK.ImageFileReader
        Of 2, 3 or 4 axes; ITK's coordinates are LPS.

    Returns
    -------
    (4, 4) ndarray
    """
    dims = len(image.GetSize())
    used = min(3, dims)
    direction = np.asarray(image.GetDirection(), dtype=np.float64).reshape(dims, dims)
    lps = np.eye(4)
    lps[:used, :used] = direction[:used, :used] * np.asarray(image.GetSpacing())[:used]
    lps[:used, 3] = image.GetOrigin()[:used]
    return LPS_TO_RAS @ lps + 0.0


def _is_placed(path: Path, header: TextHeader | None) -> bool:
    """Tell whether a header says where axes run (NRRD), how large voxels are (MetaImage).

    MetaImage files without a matrix run along the patient's axes, by their definition.
    """
    if header is not None:
        fields = header.fields
        return "space directions" in fields and fields.get("space", "").upper() in _SPACES
    if path.name.lower().endswith((".mha", ".mhd")):
        fields = read_meta_header(path).fields
        return "ElementSpacing" in fields or "ElementSize" in fields
    return True


def _millimeters(path: Path, header: TextHeader | None) -> float:
    """Return the millimeters of a header's unit of length; 1 where it names none.

    ITK passes over "space units" of NRRD and "DistanceUnits" of MetaImage.
    """
    if header is not None:
        named = header.fields.get("space units", "").replace('"', " ").split()
    elif path.name.lower().endswith((".mha", ".mhd")):
        named = read_meta_header(path).fields.get("DistanceUnits", "").split()
    else:
        named = []
    units = {unit.lower() for unit in named} - {"???", "none", "?"}
    factors = {_UNITS.get(unit) for unit in units}
    if None in factors or len(factors) > 1:
        raise GeometryError(
            f"{path}: measures lengths in {brief(', '.join(sorted(units)))}, which is not known; "
            "save it in millimeters."
        )
    return next((float(f) for f in factors if f), 1.0)


def _assumed_affine(
    path: Path,
    affine: NDArray[np.float64],
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
) -> NDArray[np.float64]:
    """Return the affine of a file that does not say where it lies."""
    if spacing is not None:
        z, y, x = spacing
        return LPS_TO_RAS @ np.diag([x, y, z, 1.0])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not assume_identity:
        raise GeometryError(
            f"{path}: has no patient orientation (NRRD: space directions of a known space) or no "
            "voxel size (MetaImage: ElementSpacing), so its place is unknown. Give the spacing in "
            "mm, or allow an assumed identity orientation."
        )
    shown = " x ".join(f"{s:.4g}" for s in sizes)
    warnings.warn(
        f"{path}: has no patient orientation; orientation LPS and {shown} mm voxels are assumed.",
        stacklevel=4,
    )
    return LPS_TO_RAS @ np.diag([*sizes, 1.0])


def _open(stored: Path, path: Path) -> Any:
    """Return a reader that has read the header with the format of the suffix, nothing else's.

    ``path`` is the name of the ``stored`` file in messages.
    """
    import SimpleITK as sitk

    lower = stored.name.lower()
    reader = sitk.ImageFileReader()
    for suffixes, name in (((".nrrd", ".nhdr"), "NrrdImageIO"), ((".mha", ".mhd"), "MetaImageIO")):
        if lower.endswith(suffixes):
            reader.SetImageIO(name)
            break
    else:
        reader.SetImageIO("GiplImageIO")
    reader.SetFileName(str(stored))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{path}: its header is damaged; {_reason(error)}") from error
    return reader


def _check_image(path: Path, reader: Any) -> None:
    """Refuse complex numbers, other than 2 to 4 axes, and what would not fit into memory."""
    import SimpleITK as sitk

    size = reader.GetSize()
    if not 2 <= len(size) <= 4:
        raise ImageError(f"{path}: the image has {len(size)} axes; 2, 3 or 4 are read.")
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in pixel:
        raise ImageError(f"{path}: the image is complex; take its magnitude first.")
    components = reader.GetNumberOfComponents()
    if components > 1 and len(size) == 4:
        raise ImageError(
            f"{path}: has a fourth axis of {size[3]} and {components} components per voxel; one "
            "of both is read."
        )
    bits = 64 if "64" in pixel else 32 if "32" in pixel else 16 if "16" in pixel else 8
    check_memory(path, 2 * int(np.prod([float(n) for n in size])) * components * bits // 8)


def _channels_first(image: Any) -> NDArray[Any]:
    """Return (C, I, J, K) values of a SimpleITK image."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if array.ndim == 3:  # one slice
        array = array[:, None]
    return array.transpose(0, 3, 2, 1)


def _reason(error: RuntimeError) -> str:
    """Return the last line of a toolkit's message, without its object addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rpartition("): ")[2][:200] if lines else "no reason is known."
