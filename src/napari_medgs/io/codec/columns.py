"""Parameters as whole numbers of steps, in units in which all steps matter alike.

Positions are counted in fractions of a cell that follow from the Gaussian's own size, folds in
standard deviations per standard deviation along the slice axis. Every unit comes from numbers
already coded, so that a reader has the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from napari_medgs._typing import Floats

CELL = 2.0
"""Voxels along each side of a cell."""
FINEST = 20
"""Bits of a position within its cell, at most."""
SHAPE = ("log_r1", "log_r2", "log_rt", "shear")
FOLDS = ("a1", "b1", "a2", "b2", "a3", "b3")
LARGEST = 2**27
_LOG2 = float(np.log(2))
_STEPS = {
    "position": 0.08,
    "log_r1": 0.055,
    "log_r2": 0.055,
    "log_rt": 0.07,
    "shear": 0.10,
    "log_weight": 0.09,
    "a1": 0.10,
    "b1": 0.10,
    "a2": 0.09,
    "b2": 0.09,
    "a3": 0.06,
    "b3": 0.06,
    "value": 0.011,
    "logit": 2.0,
}
"""Steps of equal loss per bit. In standard deviations: position; folds per power of one along the
slice axis. Values in the image's span."""


@dataclass(frozen=True)
class Quantization:
    """How finely the parameters of a field are stored.

    Attributes
    ----------
    step : float
        Factor of all steps but that of class scores; 1 loses 0.1 to 0.5 dB after fine-tuning.
    degree : int
        Highest power of the folds that is kept.
    weights : bool
        Whether the Gaussians keep their weights; 1 for all otherwise.
    logit_step : float
        Step of class scores.
    value_step : float
        Another factor of the steps of intensities.

    Examples
    --------
    >>> from napari_medgs.io.codec.columns import Quantization
    >>> Quantization(step=2).step
    2
    """

    step: float = setting(0.35, low=0.01, high=20.0)
    degree: int = setting(3, low=0, high=3)
    weights: bool = setting(True)
    logit_step: float = setting(1.0, low=0.01, high=20.0)
    value_step: float = setting(1.0, low=0.01, high=20.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Scheme:
    """What the columns of a compressed field mean.

    Attributes
    ----------
    columns : tuple of str
        Names of the columns with numbers, in the order of the file.
    steps : tuple of float
        Step of each.
    constants : dict of str to float
        Columns that are one number for all Gaussians.
    axes : tuple of int
        Which of x, y, t have cells; the others are constants.
    logit_step : float
    fractions : tuple of (int, int)
        Per axis of x, y, t the numbers by which the size of a Gaussian gives the bits of its
        position: (first x log precision + second) / 65,536.
    """

    columns: tuple[str, ...]
    steps: tuple[float, ...]
    constants: dict[str, float]
    axes: tuple[int, ...]
    logit_step: float
    fractions: tuple[tuple[int, int], ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, record: Any) -> Scheme:
        """Make a scheme of what a file says.

        Raises
        ------
        ParameterError
            When an entry is missing or makes no sense.
        """
        return checked_record(cls, record)

    def check(self, info: FieldInfo) -> None:
        """Check what a file says against its field.

        Raises
        ------
        ParameterError
            When they do not belong together.
        """
        wanted = set(column_names(len(info.image_channels)))
        known = [*self.columns, *self.constants]
        if len(known) != len(set(known)) or set(known) - wanted - {"x", "y", "t"}:
            raise ParameterError("Its columns are unknown, or named twice.")
        places = {"xyt".index(name) for name in ("x", "y", "t") if name in self.constants}
        if wanted - set(known) or places | set(self.axes) != {0, 1, 2} or places & set(self.axes):
            raise ParameterError("A column of a field is missing.")
        if len(self.axes) != len(set(self.axes)) or {"x", "y", "t"} & set(self.columns):
            raise ParameterError("Its positions are given twice.")
        good = all(1e-9 < step < 1e30 for step in (*self.steps, self.logit_step))
        if len(self.steps) != len(self.columns) or not good:
            raise ParameterError("Steps of its columns are missing or make no sense.")
        if len(self.fractions) != 3 or any(abs(n) > 2**31 for f in self.fractions for n in f):
            raise ParameterError("The fractions of its positions make no sense.")


@dataclass
class Integers:
    """A field as whole numbers.

    Attributes
    ----------
    cells : (N, 3) ndarray of int64
        Cell along x, y, t; 0 along axes without.
    fractions : (N, 3) ndarray of int64
        Position within the cell, in steps that the Gaussian's size gives.
    columns : (N, A) ndarray of int64
        One per column of the scheme.
    logits : (N, K) ndarray of int64
        Of all classes but the first, relative to the first.
    """

    cells: NDArray[np.int64]
    fractions: NDArray[np.int64]
    columns: NDArray[np.int64]
    logits: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self, which: NDArray[Any]) -> Integers:
        """Return some Gaussians."""
        return Integers(
            self.cells[which], self.fractions[which], self.columns[which], self.logits[which]
        )


def column_names(images: int) -> tuple[str, ...]:
    """Return all columns of a field beside positions and class scores, in the order of files."""
    values = tuple(f"value{c}" for c in range(images))
    return (*SHAPE, "a1", "b1", *values, "a2", "b2", "a3", "b3", "log_weight")


def make_scheme(field: GaussianField, quantization: Quantization) -> Scheme:
    """Choose steps and columns for a field.

    Parameters
    ----------
    field : GaussianField
    quantization : Quantization

    Returns
    -------
    Scheme

    Raises
    ------
    ParameterError
        When its numbers are too large for so fine steps.
    """
    images = len(field.info.image_channels)
    numbers = natural_columns(field)
    steps, constants = {}, {}
    for name in column_names(images):
        base = _STEPS["value" if name.startswith("value") else name]
        step = float(np.float32(base * quantization.step))
        column = numbers[name]
        dropped = name in FOLDS and int(name[1]) > min(quantization.degree, field.info.degree)
        if dropped or (name == "log_weight" and not quantization.weights):
            constants[name] = 0.0
        elif len(column) == 0 or (column == column[0]).all():
            constants[name] = float(column[0]) if len(column) else 0.0
        else:
            if name.startswith("value"):  # fits stay within 0 to 1; others set their own span
                low, high = np.quantile(column, [0.01, 0.99])
                wider = quantization.value_step * max(1.0, (high - low) / 4)
                step = float(np.float32(step * wider))
            steps[name] = step
    axes = []
    for axis, name in enumerate("xyt"):
        column = field.centers[:, axis].astype(np.float64)
        if len(column) and (column != column[0]).any():
            axes.append(axis)
        else:
            constants[name] = float(column[0]) if len(column) else 0.0
    finest = float(np.log2(CELL / (_STEPS["position"] * quantization.step)))
    fractions = []
    for name in ("log_r1", "log_r2", "log_rt"):
        per_step = steps.get(name, 0.0) / _LOG2
        start = finest + constants.get(name, 0.0) / _LOG2
        fractions.append((round(per_step * 65536), round((start + 0.5) * 65536)))
    return Scheme(
        columns=tuple(steps),
        steps=tuple(steps.values()),
        constants=constants,
        axes=tuple(axes),
        logit_step=float(np.float32(_STEPS["logit"] * quantization.logit_step)),
        fractions=tuple(fractions),
    )


def natural_columns(field: GaussianField) -> dict[str, NDArray[np.float64]]:
    """Return columns in their own units; folds as they are."""
    precision = field.log_precision.astype(np.float64)
    # A shape beyond all bounds overflows here, and is refused when it is rounded.
    with np.errstate(over="ignore"):
        shear = field.shear.astype(np.float64) * np.exp(precision[:, 0] - precision[:, 1])
    columns = {"log_r1": precision[:, 0], "log_r2": precision[:, 1], "log_rt": precision[:, 2]}
    columns["shear"] = shear
    for k in range(3):
        columns[f"a{k + 1}"] = field.fold[:, k, 0].astype(np.float64)
        columns[f"b{k + 1}"] = field.fold[:, k, 1].astype(np.float64)
    for c in range(len(field.info.image_channels)):
        columns[f"value{c}"] = field.values[:, c].astype(np.float64)
    columns["log_weight"] = field.log_weight.astype(np.float64)
    return columns


def kept_degree(scheme: Scheme, info: FieldInfo) -> int:
    """Return the highest power of the folds that a scheme keeps."""
    used = [
        int(name[1])
        for name in FOLDS
        if name in scheme.columns or scheme.constants.get(name, 0.0) != 0
    ]
    return min(info.degree, max(used, default=0))


def position_bits(scheme: Scheme, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bits of every position within its cell (N, 3), by integers alone."""
    bits = np.zeros((len(columns), 3), np.int64)
    for axis, name in enumerate(("log_r1", "log_r2", "log_rt")):
        if axis in scheme.axes:
            slope, start = scheme.fractions[axis]
            size = columns[:, scheme.columns.index(name)] if name in scheme.columns else 0
            bits[:, axis] = np.clip((slope * size + start) >> 16, 0, FINEST)
    return bits


def quantize(field: GaussianField, scheme: Scheme) -> Integers:
    """Round a field to the steps of a scheme.

    Raises
    ------
    ParameterError
        When its numbers are too large for so fine steps.
    """
    columns = np.zeros((len(field), len(scheme.columns)), np.int64)
    numbers = natural_columns(field)
    known: dict[str, Any] = dict(scheme.constants)
    for k, (name, step) in enumerate(zip(scheme.columns, scheme.steps, strict=True)):
        column = numbers[name]
        if name in FOLDS:
            column = column * fold_unit(name, known)
        columns[:, k] = _rounded(column / step)
        if name in SHAPE:
            known[name] = columns[:, k] * step
    bits = position_bits(scheme, columns)
    cells, fractions = np.zeros((2, len(field), 3), np.int64)
    for axis in scheme.axes:
        place = field.centers[:, axis].astype(np.float64) / CELL
        cells[:, axis] = np.floor(place)
        fine = np.floor((place - cells[:, axis]) * 2.0 ** bits[:, axis]).astype(np.int64)
        fractions[:, axis] = np.minimum(fine, (1 << bits[:, axis]) - 1)
    seg = field.values[:, field.head_channels("seg")].astype(np.float64)
    logits = _rounded((seg[:, 1:] - seg[:, :1]) / scheme.logit_step)
    return Integers(cells, fractions, columns, logits)


def _rounded(column: NDArray[np.float64]) -> NDArray[np.int64]:
    if not np.isfinite(column).all() or np.abs(column).max(initial=0) > LARGEST:
        raise ParameterError(
            "The field holds numbers too large for so fine steps; keep it as .medgs.safetensors, "
            "or choose a coarser step."
        )
    return np.rint(column).astype(np.int64)


def fold_unit(name: str, known: dict[str, Any]) -> Any:
    """Return by how much a coefficient is multiplied to count in standard deviations."""
    across = known["log_r1" if name[0] == "a" else "log_r2"]
    return np.exp(across - int(name[1]) * np.asarray(known["log_rt"]))


def dequantize(
    integers: Integers, scheme: Scheme, background: Floats, info: FieldInfo
) -> GaussianField:
    """Return the field that whole numbers stand for.

    Raises
    ------
    ParameterError
        When they make no field.
    """
    count, images = len(integers), len(info.image_channels)
    known: dict[str, Any] = {
        name: np.full(count, number) for name, number in scheme.constants.items()
    }
    with np.errstate(over="ignore", invalid="ignore"):
        for k, (name, step) in enumerate(zip(scheme.columns, scheme.steps, strict=True)):
            known[name] = integers.columns[:, k] * step
        precision = np.stack([known[name] for name in SHAPE[:3]], -1)
        if np.abs(precision).max(initial=0) > 40:
            raise ParameterError("Its Gaussians are smaller or larger than can be rendered.")
        centers = np.empty((count, 3))
        bits = position_bits(scheme, integers.columns)
        for axis, name in enumerate("xyt"):
            if axis in scheme.axes:
                fine = (integers.fractions[:, axis] + 0.5) / (1 << bits[:, axis])
                centers[:, axis] = (integers.cells[:, axis] + fine) * CELL
            else:
                centers[:, axis] = known[name]
        fold = np.zeros((count, 3, 2))
        for name in FOLDS:
            if name in scheme.columns:
                fold[:, int(name[1]) - 1, "ab".index(name[0])] = known[name] / fold_unit(
                    name, known
                )
            else:
                fold[:, int(name[1]) - 1, "ab".index(name[0])] = known[name]
        values = np.zeros((count, info.channels))
        for c in range(images):
            values[:, c] = known[f"value{c}"]
        values[:, images + 1 :] = integers.logits * scheme.logit_step
        return GaussianField(
            centers=centers.astype(np.float32),
            log_precision=precision.astype(np.float32),
            shear=known["shear"] * np.exp(precision[:, 1] - precision[:, 0]),
            fold=fold.astype(np.float32),
            log_weight=known["log_weight"],
            values=values.astype(np.float32),
            background=background,
            info=info,
        )
