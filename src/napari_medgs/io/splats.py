"""Gaussian fields as .ply files that viewers of 3D Gaussian splats open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._atomic import atomic_path

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: color = 0.5 + SH_C0 * f_dc."""

PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Vertex properties in the order of the 3DGS reference code, all float32."""

_MIN_OPACITY = 0.02  # Gaussians below it are invisible and are not written


def save_splat_ply(
    path: str | Path,
    field: GaussianField,
    *,
    color: Literal["intensity", "class"] = "intensity",
    channel: int = 0,
    opacity: float | None = None,
) -> int:
    """Write a field for viewers of 3D Gaussian splatting; it cannot be read back as a field.

    Centers in RAS mm, covariances as log scales (mm) and unit quaternions (w, x, y, z), opacity
    as a logit, color as the constant spherical harmonic. Fold terms of degree 2 and 3 are
    dropped: a splat is an unbent Gaussian.

    Parameters
    ----------
    path : str or Path
        Ends in ``.ply``.
    field : GaussianField
    color : {"intensity", "class"}
        Gray by the image channel, or the color of the most probable class.
    channel : int
        Image channel that sets the gray and, by default, the opacity.
    opacity : float, optional
        One opacity for all, above 0 and below 1. By default Gaussians near the background
        (its intensity, or class 0) are transparent, and those below 2 % are left out.

    Returns
    -------
    int
        Number of splats written.

    Raises
    ------
    FileError
        When the suffix is not ``.ply`` or the file cannot be written.
    ParameterError
        When the field has no such channel or no classes, the opacity is out of range, or
        nothing in it differs from the background.
    """
    path = Path(path)
    if path.suffix.lower() != ".ply":
        raise FileError(f"{path}: Gaussian splats are written as .ply, not as {path.suffix!r}.")
    if color not in ("intensity", "class"):
        raise ParameterError(f"Splats are colored by intensity or class, not {color!r}.")
    if opacity is not None and not 0 < opacity < 1:
        raise ParameterError(f"The opacity must be above 0 and below 1, not {opacity}.")
    rgb, visible = (_by_class if color == "class" else _by_intensity)(field, channel)
    if opacity is not None:
        visible = np.full(len(field), opacity)
    kept = np.flatnonzero(visible >= min(_MIN_OPACITY, opacity or 1.0))
    if not len(kept):
        raise ParameterError("No Gaussian differs from the background: nothing would be visible.")
    table = splat_table(field.subset(kept), rgb[kept], visible[kept])
    lines = [f"property float {name}" for name in PROPERTIES]
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            "comment napari-medgs, RAS millimeters",
            f"element vertex {len(table)}",
            *lines,
            "end_header\n",
        ]
    )
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(header.encode("ascii"))
        stream.write(table.tobytes())
    return len(table)


def count_splats(path: str | Path) -> int | None:
    """Return how many splats a ``.ply`` file holds; None where it holds something else.

    Parameters
    ----------
    path : str or Path
    """
    try:
        with Path(path).open("rb") as opened:
            header, end, _ = opened.read(2**16).partition(b"end_header")
    except OSError:
        return None
    words = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    named = {line[-1] for line in words if line[:1] == ["property"]}
    counts = [line[2] for line in words if line[:2] == ["element", "vertex"] and len(line) == 3]
    if not end or not set(PROPERTIES) <= named or not counts or not counts[0].isdecimal():
        return None
    return int(counts[0])


def splat_table(
    field: GaussianField, rgb: NDArray[np.float64], opacity: NDArray[np.float64]
) -> NDArray[np.void]:
    """Return the vertices of a splat file.

    Parameters
    ----------
    field : GaussianField
        N Gaussians.
    rgb : (N, 3) ndarray
        In [0, 1].
    opacity : (N,) ndarray
        In (0, 1].

    Returns
    -------
    (N,) structured ndarray of little-endian float32, fields :data:`PROPERTIES`
    """
    from scipy.spatial.transform import Rotation

    squares, axes = np.linalg.eigh(field.world_covariances())
    # Columns of a rotation, not of a reflection, whose quaternion would be nonsense.
    axes[:, :, 0] *= np.sign(np.linalg.det(axes))[:, None]
    # Rotation counts (x, y, z, w), splat files (w, x, y, z).
    quaternions = Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]]
    share = np.clip(opacity, 1e-4, 1 - 1e-4)
    table = np.zeros(len(field), [(name, "<f4") for name in PROPERTIES])
    columns = np.column_stack(
        [
            field.world_centers(),
            np.zeros((len(field), 3)),
            (rgb - 0.5) / SH_C0,
            np.log(share / (1 - share)),
            0.5 * np.log(np.maximum(squares, 1e-12)),
            quaternions,
        ]
    )
    for name, column in zip(PROPERTIES, columns.T, strict=True):
        table[name] = column
    return table


def _by_intensity(
    field: GaussianField, channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gray by intensity (scaled to [0, 1]); the further from the background, the more opaque."""
    names = field.info.image_channels
    if not 0 <= channel < len(names):
        raise ParameterError(
            f"The field has {len(names)} image channels, none numbered {channel}."
        )
    gray = field.values[:, channel].astype(np.float64).clip(0, 1)
    away = np.abs(gray - float(np.clip(field.background[channel], 0, 1)))
    return np.repeat(gray[:, None], 3, axis=1), away * _relative_weight(field)


def _by_class(
    field: GaussianField, channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Color of the likeliest class; opaque as its probability, background transparent."""
    from napari_medgs.io.meshes import label_color

    if not field.info.class_names:
        raise ParameterError("The field has no classes: color by intensity, or fit with a mask.")
    logits = field.values[:, field.head_channels("seg")].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = odds.argmax(axis=1)
    probability = odds.max(axis=1) / odds.sum(axis=1)
    colors = np.array([label_color(value) for value in field.info.label_values])
    return colors[best], np.where(best == 0, 0.0, probability) * _relative_weight(field)


def _relative_weight(field: GaussianField) -> NDArray[np.float64]:
    """Weight of a Gaussian at its own center relative to itself plus the background."""
    weight = np.exp(field.log_weight.astype(np.float64))
    if field.info.blend == "normalized":
        return weight / (weight + field.info.eps)
    return np.minimum(weight, 1.0)
