"""Order and place of a stack of frames: what is missing, doubled, uneven, shifted or tilted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError
from napari_medgs.io.dicom.frames import Frame
from napari_medgs.io.folders import natural_key

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNEVEN_REFUSED = 0.05
_UNEVEN_WARNED = 0.002
_SHIFT_REFUSED = 0.5  # pixels
_SHIFT_WARNED = 0.05
_TILT_WARNED = 0.5  # degrees


def arrange(
    path: Path, frames: Sequence[Frame], spacing: tuple[float, float, float] | None
) -> tuple[list[Frame], NDArray[np.float64]]:
    """Sort frames by position along their normal, and check that they form one stack.

    Parameters
    ----------
    path : Path
        For messages.
    frames : sequence of Frame
    spacing : (z, y, x) in mm or None
        Only for frames that lack a position, an orientation or a pixel spacing.

    Returns
    -------
    ordered : list of Frame
    affine : (4, 4) ndarray
        Maps (column, row, slice, 1) to RAS millimeters. A tilted stack has a sheared affine.

    Raises
    ------
    GeometryError
        When frames differ in size, orientation or spacing, when geometry is missing and no
        spacing is given, when slices are missing, doubled, uneven or shifted within their plane.
    """
    _check_alike(path, frames)
    first = frames[0]
    unplaced = any(f.origin is None or f.axes is None for f in frames)
    if unplaced:
        _check_all_unplaced(path, frames)
        if spacing is None:
            raise GeometryError(_lacking(path, frames))
        ordered = _by_number(path, frames)
        z, y, x = spacing
        return ordered, LPS_TO_RAS @ np.diag([x, y, z, 1.0])
    if first.spacing is None:
        if spacing is None:
            raise GeometryError(_lacking(path, frames))
        pixel = np.array(spacing[1:])
    elif spacing is not None:
        raise GeometryError(f"{path}: has its own geometry; do not give a spacing.")
    else:
        pixel = first.spacing
    normal = first.normal
    origins = np.array([f.origin for f in frames], dtype=np.float64)
    order = np.argsort(origins @ normal, kind="stable")
    ordered = [frames[k] for k in order]
    origins = origins[order]
    if len(ordered) == 1:
        distance = spacing[0] if spacing is not None else first.thickness
        if not distance > 0:
            # A lone slice has no neighbor; its extent across is of no consequence for its pixels.
            distance = 1.0
            warnings.warn(
                f"{path}: one slice without thickness; 1 mm is taken for it.", stacklevel=4
            )
        return ordered, _affine(first, pixel, normal * distance)
    _check_gaps(path, ordered, origins @ normal)
    _check_line(path, ordered, origins, pixel)
    steps = (origins[-1] - origins[0]) / (len(ordered) - 1)
    if spacing is not None and abs(steps @ normal - spacing[0]) > 0.01 * spacing[0]:
        raise GeometryError(
            f"{path}: its slices lie {steps @ normal:.4g} mm apart, and the spacing given says "
            f"{spacing[0]:.4g} mm; give the right one."
        )
    # Rounded direction cosines make a normal that is not quite of unit length.
    length = np.linalg.norm(steps) * np.linalg.norm(normal)
    cosine = float(np.clip(steps @ normal / length, -1, 1))
    tilt = float(np.degrees(np.arccos(cosine)))
    if tilt > _TILT_WARNED:
        warnings.warn(
            f"{path}: the gantry was tilted by {tilt:.1f} degrees; voxels are kept where they "
            "are, by a sheared affine, which ITK programs do not open in NIfTI files (--deshear "
            "resamples).",
            stacklevel=4,
        )
    return ordered, _affine(ordered[0], pixel, steps)


def _affine(
    first: Frame, pixel: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the affine (column, row, slice, 1) to RAS millimeters."""
    axes = np.eye(3)[:2] if first.axes is None else first.axes
    lps = np.eye(4)
    # PixelSpacing names the distance of rows first, which is the step along a column.
    lps[:3, 0] = axes[0] * pixel[1]
    lps[:3, 1] = axes[1] * pixel[0]
    lps[:3, 2] = step
    if first.origin is not None:
        lps[:3, 3] = first.origin
    return LPS_TO_RAS @ lps + 0.0


def _check_all_unplaced(path: Path, frames: Sequence[Frame]) -> None:
    """Refuse stacks of which some frames have a place and others do not."""
    for keyword, missing in (
        ("ImagePositionPatient", [f for f in frames if f.origin is None]),
        ("ImageOrientationPatient", [f for f in frames if f.axes is None]),
    ):
        if 0 < len(missing) < len(frames):
            raise GeometryError(
                f"{path}: {missing[0].name} carries no usable {keyword}, and other slices do; "
                "remove what does not belong, or complete it."
            )


def _by_number(path: Path, frames: Sequence[Frame]) -> list[Frame]:
    """Sort frames without a place by instance number, else by the numbers in their names."""
    if len({(f.number, f.index) for f in frames}) < len(frames):
        warnings.warn(
            f"{path}: neither positions nor instance numbers tell the order of its slices; they "
            "are sorted by the numbers in the files' names.",
            stacklevel=5,
        )
    return sorted(frames, key=lambda f: (f.number, natural_key(f.path), f.index))


def _lacking(path: Path, frames: Sequence[Frame]) -> str:
    """Return a message that names what the files do not say."""
    lacking = [
        keyword
        for keyword, missing in (
            ("ImagePositionPatient", any(f.origin is None for f in frames)),
            ("ImageOrientationPatient", any(f.axes is None for f in frames)),
            ("PixelSpacing", any(f.spacing is None for f in frames)),
        )
        if missing
    ]
    if lacking[0] == "ImagePositionPatient":
        text = "carry no position (ImagePositionPatient)"
    elif lacking[0] == "ImageOrientationPatient":
        text = "carry no usable orientation (ImageOrientationPatient)"
    else:
        text = "carry no usable pixel size (PixelSpacing)"
    detector = frames[0].detector_spacing
    if "PixelSpacing" in lacking and detector is not None and (detector > 0).all():
        text += (
            f". At the detector, not in the patient, pixels measure {detector[0]:.4g} x "
            f"{detector[1]:.4g} mm (ImagerPixelSpacing)"
        )
    stacked = " to stack them by their instance number" if "ImageP" in lacking[0] else ""
    return f"{path}: the DICOM files {text}. Give the spacing in mm (--spacing Z Y X){stacked}."


def _check_alike(path: Path, frames: Sequence[Frame]) -> None:
    """Refuse frames of several sizes, spacings or orientations."""
    first = frames[0]
    for other in frames[1:]:
        if other.shape != first.shape:
            raise GeometryError(
                f"{path}: the series mixes slices of {first.shape[::-1]} and {other.shape[::-1]} "
                f"pixels ({other.name}); remove what does not belong to the stack."
            )
        if (
            other.axes is not None
            and first.axes is not None
            and not np.allclose(other.axes, first.axes, atol=1e-3)
        ):
            raise GeometryError(
                f"{path}: the series mixes orientations ({other.name}): a localizer or several "
                "stacks; remove what does not belong."
            )
        one, two = (np.zeros(2) if f.spacing is None else f.spacing for f in (first, other))
        if not np.allclose(two, one, rtol=1e-3, atol=0):
            raise GeometryError(f"{path}: the series mixes pixel spacings ({other.name}).")


def _check_gaps(path: Path, ordered: Sequence[Frame], places: NDArray[np.float64]) -> None:
    """Refuse doubled, missing and uneven slices."""
    gaps = np.diff(places)
    step = float(np.median(gaps))
    if gaps.min() <= 1e-3 * max(step, 1e-3):
        k = int(gaps.argmin())
        raise GeometryError(
            f"{path}: two slices lie at the same position ({ordered[k].name} and "
            f"{ordered[k + 1].name}): the series mixes several time points or echoes that "
            "their headers do not tell apart; separate them first."
        )
    off = np.abs(gaps - step) / step
    k = int(off.argmax())
    between = f"between {ordered[k].name} and {ordered[k + 1].name}"
    if off[k] > _UNEVEN_REFUSED:
        multiples = np.rint(gaps / step)
        whole = bool((np.abs(gaps / step - multiples) <= _UNEVEN_REFUSED).all())
        wide = int((multiples > 1).sum())
        # Where gaps of one and of several steps are equally common, nothing need be missing.
        if whole and multiples.min() >= 1 and 4 * wide <= max(len(gaps), 4):
            missing = int((multiples - 1).sum())
            raise GeometryError(
                f"{path}: {missing} slice{'s are' if missing > 1 else ' is'} missing: the step "
                f"{between} is {gaps[k]:.4g} mm instead of {step:.4g} mm. Complete the series."
            )
        raise GeometryError(
            f"{path}: the slices are unevenly spaced: {gaps[k]:.4g} mm {between}, "
            f"{step:.4g} mm elsewhere. Resample the series to one spacing first."
        )
    if off[k] > _UNEVEN_WARNED:
        warnings.warn(
            f"{path}: slice steps vary by {100 * off[k]:.1f}% ({between}); the mean is used.",
            stacklevel=5,
        )


def _check_line(
    path: Path,
    ordered: Sequence[Frame],
    origins: NDArray[np.float64],
    pixel: NDArray[np.float64],
) -> None:
    """Refuse slices that are shifted within their plane against the line through the others."""
    axes = ordered[0].axes
    if axes is None or len(ordered) < 3:
        return
    inplane = (origins - origins[0]) @ axes.T
    count = np.arange(len(ordered))[:, None]
    # Medians, so that one shifted slice does not move the line of the others.
    line = count * np.median(np.diff(inplane, axis=0), axis=0)
    line += np.median(inplane - line, axis=0)
    away = inplane - line
    pixels = np.abs(away / pixel[::-1]).max(axis=1)
    k = int(pixels.argmax())
    distance = float(np.linalg.norm(away[k]))
    if pixels[k] > _SHIFT_REFUSED:
        raise GeometryError(
            f"{path}: {ordered[k].name} is shifted within its plane, by {distance:.3g} mm against "
            "the line through the other slices; the stack is no regular grid. Resample it first."
        )
    if pixels[k] > _SHIFT_WARNED:
        warnings.warn(
            f"{path}: {ordered[k].name} is shifted within its plane by {distance:.2g} mm, "
            f"{pixels[k]:.2f} pixels; the line through all slices is used.",
            stacklevel=5,
        )
