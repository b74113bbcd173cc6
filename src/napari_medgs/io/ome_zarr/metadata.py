"""The multiscale metadata of OME-Zarr 0.4 and 0.5, checked before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._reasons import reason

_MILLIMETERS = {
    "meter": 1e3, "decimeter": 100.0, "centimeter": 10.0, "millimeter": 1.0, "micrometer": 1e-3,
    "nanometer": 1e-6, "picometer": 1e-9, "angstrom": 1e-7, "inch": 25.4, "mm": 1.0, "um": 1e-3,
    "µm": 1e-3, "micron": 1e-3, "nm": 1e-6, "cm": 10.0,
}  # fmt: skip
_SECONDS = {
    "second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0, "hour": 3600.0,
    "s": 1.0, "ms": 1e-3,
}  # fmt: skip
# How axes of images without an orientation are taken to run.
_TAKEN = {"z": "inferior-to-superior", "y": "anterior-to-posterior", "x": "right-to-left"}
_BODY = {*_TAKEN.values(), "superior-to-inferior", "posterior-to-anterior", "left-to-right"}


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Attributes
    ----------
    path : str
        Of its array, within the group.
    scale, translation : tuple of float
        By axis, in the axes' units.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """An image of several resolutions.

    Attributes
    ----------
    axes : str
        A letter per axis of the arrays: t, c, z, y or x.
    units : tuple of float or None
        Millimeters (of t: seconds) per unit of each axis, None where the file does not say.
    levels : tuple of Level
        The finest first.
    channel_names : tuple of str
        Empty where there are none.
    """

    axes: str
    units: tuple[float | None, ...]
    levels: tuple[Level, ...]
    channel_names: tuple[str, ...]

    @property
    def time_unit(self) -> float | None:
        """Seconds between time points at the finest level, where the file says so."""
        if "t" not in self.axes:
            return None
        k = self.axes.index("t")
        unit = self.units[k]
        return None if unit is None else unit * self.levels[0].scale[k]

    def sizes(
        self, level: Level, given: tuple[float, ...] | None, path: str | Path
    ) -> list[float]:
        """Return the voxel sizes (z, y, x) of a level in mm.

        Parameters
        ----------
        level : Level
        given : (z, y, x) in mm or None
            For the finest level, where the file has no units; must agree where it has them.
        path : str or Path
            For messages.

        Raises
        ------
        GeometryError
            When the sizes are not known, or contradict the given ones.
        """
        finest = self.levels[0]
        sizes: list[float] = []
        for n, axis in enumerate("zyx"):
            k = self.axes.find(axis)
            unit = self.units[k] if k >= 0 else None
            if unit is None and given is None:
                if k < 0 and "z" not in self.axes:  # one slice, as thick as its pixels
                    sizes.append(math.nan)
                    continue
                raise GeometryError(
                    f"{path}: does not say how large its voxels are (no unit along {axis}); give "
                    "the spacing (z, y, x) in mm."
                )
            if unit is None:
                assert given is not None
                sizes.append(given[n] * (level.scale[k] / finest.scale[k] if k >= 0 else 1.0))
                continue
            if given is not None and not math.isclose(
                given[n], finest.scale[k] * unit, rel_tol=1e-3
            ):
                raise GeometryError(
                    f"{path}: has its own voxel size of {finest.scale[k] * unit:.4g} mm along "
                    f"{axis}, which the given spacing contradicts. A spacing is only for files "
                    "without geometry."
                )
            sizes.append(level.scale[k] * unit)
        return [sizes[1] if math.isnan(size) else size for size in sizes]

    def origin(self, level: Level, sizes: Sequence[float]) -> list[float]:
        """Return where a level's first voxel lies along (z, y, x), in mm."""
        origin = []
        for axis, size in zip("zyx", sizes, strict=True):
            k = self.axes.find(axis)
            # The unit follows from the size, which may have been given.
            origin.append(level.translation[k] * size / level.scale[k] if k >= 0 else 0.0)
        return origin


def parse_multiscale(path: str | Path, attributes: Mapping[str, Any]) -> Multiscale | None:
    """Return the multiscale image that a group's attributes describe; None where they do not.

    Parameters
    ----------
    path : str or Path
        For messages.
    attributes : mapping
        Of the group: ``multiscales`` in 0.4, the same below ``ome`` in 0.5.

    Returns
    -------
    Multiscale or None

    Raises
    ------
    FileError
        When the metadata are damaged.
    ImageError
        When there are other axes than t, c, z, y and x, or axes of another anatomical orientation.

    References
    ----------
    https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/
    """
    found = ome(attributes).get("multiscales")
    if found is None:
        return None
    try:
        image = found[0]
        axes, units = _axes(path, image)
        whole = _transform(image.get("coordinateTransformations"), len(axes))
        levels = tuple(_level(dataset, whole, len(axes)) for dataset in image["datasets"])
        if not levels:
            raise ValueError("no resolution is listed")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FileError(
            f"{path}: its OME-Zarr metadata are damaged ({reason(error, 100)})."
        ) from error
    return Multiscale(axes, units, levels, _channel_names(attributes))


def ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a group's OME metadata: under ``ome`` in version 0.5, at the top before it."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def label_colors(attributes: Mapping[str, Any]) -> dict[int, tuple[float, float, float]]:
    """Return the colors (red, green, blue) from 0 to 1 of a label image, by label value."""
    colors: dict[int, tuple[float, float, float]] = {}
    entries = _label_entries(attributes, "colors")
    for value, entry in entries:
        rgba = entry.get("rgba")
        if isinstance(rgba, list) and len(rgba) >= 3 and all(type(v) is int for v in rgba):
            red, green, blue = (min(max(v, 0), 255) / 255 for v in rgba[:3])
            colors[value] = (red, green, blue)
    return colors


def label_names(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of a label image's properties, by label value."""
    names: dict[int, str] = {}
    for value, entry in _label_entries(attributes, "properties"):
        name = next((entry[k] for k in ("name", "class", "label") if k in entry), None)
        if isinstance(name, str) and name:
            names[value] = "".join(c for c in name if c.isprintable())
    return names


def _label_entries(attributes: Mapping[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    record = ome(attributes).get("image-label")
    entries = record.get(key) if isinstance(record, dict) else None
    return [
        (entry["label-value"], entry)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and type(entry.get("label-value")) is int
    ]


def _axes(path: str | Path, image: Mapping[str, Any]) -> tuple[str, tuple[float | None, ...]]:
    """Return a letter and a unit per axis."""
    listed = image.get("axes")
    if listed is None:
        raise ValueError("no axes are listed; version 0.4 or 0.5 is needed")
    letters, units = "", []
    for axis in listed:
        name = str(axis["name"] if isinstance(axis, dict) else axis).lower()
        kind = axis.get("type") if isinstance(axis, dict) else None
        letter = {"time": "t", "channel": "c"}.get(str(kind), name)
        unit = axis.get("unit") if isinstance(axis, dict) else None
        letters += letter if len(letter) == 1 else "?"
        known = _SECONDS if letter == "t" else _MILLIMETERS
        units.append(known.get(str(unit)))
    if set(letters) - set("tczyx") or len(set(letters)) != len(letters) or "x" not in letters:
        raise ImageError(
            f"{path}: has the axes '{letters[:20]}'; time, channels, z, y and x are read."
        )
    for letter, axis in zip(letters, listed, strict=True):
        _check_direction(path, letter, axis)
    if "y" not in letters:
        raise ImageError(f"{path}: has no axis y; two or three axes of space are read.")
    return letters, tuple(units)


def _check_direction(path: str | Path, letter: str, axis: Any) -> None:
    """Refuse an axis that runs another way in the body than axes are taken to run.

    References
    ----------
    RFC-4 of OME-Zarr, "axis anatomical orientation". Its words for animals (dorsal-to-ventral)
    have no direction in the body of a standing human.
    """
    record = axis.get("orientation") if isinstance(axis, dict) else None
    value = record.get("value") if isinstance(record, dict) else None
    if letter in _TAKEN and value in _BODY and value != _TAKEN[letter]:
        raise ImageError(
            f"{path}: says that its axis {letter} runs {value}; of OME-Zarr, images whose axes z, "
            "y and x run to superior, posterior and left are read. Save it as NIfTI or NRRD, or "
            "turn it."
        )


def _level(
    dataset: Mapping[str, Any], whole: tuple[list[float], list[float]], count: int
) -> Level:
    """Return a resolution with the image's own transformation applied after its."""
    path = dataset["path"]
    if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("an array lies outside the image")
    scale, shift = _transform(dataset.get("coordinateTransformations"), count)
    return Level(
        path,
        tuple(a * b for a, b in zip(scale, whole[0], strict=True)),
        tuple(a * b + c for a, b, c in zip(shift, *whole, strict=True)),
    )


def _transform(entries: Any, count: int) -> tuple[list[float], list[float]]:
    """Return the scale and the translation of a list of transformations."""
    scale, shift = [1.0] * count, [0.0] * count
    for entry in entries or ():
        kind = entry["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise ValueError(f"a transformation '{str(kind)[:20]}'")
        values = [float(v) for v in entry[kind]]
        if len(values) != count or not all(map(math.isfinite, values)):
            raise ValueError(f"a {kind} of {len(values)} numbers for {count} axes")
        if kind == "scale":
            if min(values) <= 0:
                raise ValueError("a scale that is not positive")
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        else:
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    return scale, shift


def _channel_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    record = ome(attributes).get("omero")
    channels = record.get("channels") if isinstance(record, dict) else None
    if not isinstance(channels, list):
        return ()
    names = [c.get("label") if isinstance(c, dict) else None for c in channels]
    known = [n for n in names if isinstance(n, str) and n]
    return tuple(known) if len(known) == len(names) else ()
