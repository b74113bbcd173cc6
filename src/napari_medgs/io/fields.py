"""Field files: safetensors with a JSON header, so that opening one runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import parse_json
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import FileError, MedGSError
from napari_medgs.io._safetensors import TensorFormat

FORMAT = TensorFormat("napari-medgs field", 1, "field", 16 * 2**20)
SUFFIX = ".medgs.safetensors"


def info_to_json(info: FieldInfo) -> str:
    """Return the JSON text of everything in a field that is not a tensor."""
    record = asdict(info)
    record["grid"] = info.grid.to_dict()
    return json.dumps(record, default=_plain)


def _plain(value: Any) -> Any:
    """Turn numpy numbers and arrays into JSON types."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Cannot store {type(value).__name__} in a field file.")


def info_from_json(text: str) -> FieldInfo:
    """Make a :class:`FieldInfo` of :func:`info_to_json`'s text; unknown keys are ignored."""
    return FieldInfo.from_dict(parse_json(text))


def save_field(
    path: str | Path,
    field: GaussianField,
    *,
    extra: Mapping[str, NDArray[Any]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a field to a ``.medgs.safetensors`` file.

    The write is atomic: a temporary file is renamed when complete.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgs.safetensors``.
    field : GaussianField
    extra : mapping of str to ndarray, optional
        More tensors, whose names hold a dot; :func:`load_field` passes over them, see
        :func:`load_extra`.
    notes : mapping of str to str, optional
        More entries of the header.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    >>> params = mg.FitParams(gaussians=20, iterations=2, backend="cpu")
    >>> field = mg.fit(mg.Volume.from_array(image), params).field
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.save_field(Path(folder) / "scan.medgs.safetensors", field)
    ...     same = mg.load_field(path)
    >>> bool((same.centers == field.centers).all())
    True
    """
    from safetensors.numpy import save

    path = Path(path)
    if not path.name.endswith(".safetensors"):
        raise FileError(f"{path}: a field's file name must end in {SUFFIX}.")
    field.validate()
    tensors = {name: getattr(field, name) for name in field.tensor_names()}
    tensors.update({name: np.ascontiguousarray(array) for name, array in (extra or {}).items()})
    header = FORMAT.header(info=info_to_json(field.info), **(notes or {}))
    FORMAT.write(path, save(tensors, metadata=header))
    return path


def is_field_file(path: str | Path) -> bool:
    """Tell by its suffix whether a path is a field file."""
    return Path(path).name.endswith(".safetensors")


def load_field(path: str | Path) -> GaussianField:
    """Read a field file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    GaussianField

    Raises
    ------
    FileError
        When the file is missing, damaged or no field.
    FormatVersionError
        When a newer version of the package wrote it.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> mg.load_field("missing.medgs.safetensors")
    Traceback (most recent call last):
    napari_medgs.errors.FileError: missing.medgs.safetensors: no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    header = FORMAT.read_header(path)
    try:
        with safe_open(path, framework="numpy") as opened:
            names = GaussianField.tensor_names()
            missing = set(names) - set(opened.keys())
            if missing:
                raise FileError(f"{path}: the field lacks {', '.join(sorted(missing))}.")
            tensors = {name: opened.get_tensor(name) for name in names}
        return GaussianField(**tensors, info=info_from_json(header["info"]))
    except MedGSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: damaged field file. {error}") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged or truncated field file ({error}).") from error


def load_extra(path: str | Path, prefix: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read the additional tensors of a field file.

    Parameters
    ----------
    path : str or Path
    prefix : str
        Of their names, without the dot.

    Returns
    -------
    tensors : dict of str to ndarray
        By name, without the prefix; empty where there are none.
    header : dict of str to str
        All entries of the header.

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_field`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    header = FORMAT.read_header(path)
    start = f"{prefix}."
    try:
        with safe_open(path, framework="numpy") as opened:
            names = [name for name in opened.keys() if name.startswith(start)]  # noqa: SIM118
            tensors = {name.removeprefix(start): opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged or truncated field file ({error}).") from error
    return tensors, header
