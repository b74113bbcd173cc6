"""The card of a segmenter: everything about it except its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_medgs._text import differing_parts
from napari_medgs._typing import Floats
from napari_medgs._util.records import checked_record
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, ImageError, ParameterError
from napari_medgs.learning.networks.slots import SegmenterConfig

SUFFIX = ".safetensors"
NOTE = "Research software: check every mask; it is no diagnosis."
MOST_CLASSES, MOST_FOLDS = 249, 20


@dataclass(frozen=True)
class ChannelScale:
    """How the intensities of one contrast become the network's input.

    Attributes
    ----------
    kind : {"image", "fixed"}
        "image": mean and standard deviation of every image for itself; "fixed": those of the
        training cases, for intensities that mean the same everywhere, as in CT.
    low, high : float
        Intensities are cut to these; of "fixed" only.
    mean, deviation : float
        Of "fixed" only.
    """

    kind: Literal["image", "fixed"] = "image"
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class CaseEntry:
    """A case that a segmenter was trained on.

    Attributes
    ----------
    name : str
    fold : int
        The fold in which it was left out to be measured on; -1 where there were none.
    dice : dict of str to float
        Dice by class name, of the network that had not seen the case; empty where not measured.
    agreement : float, optional
        How far the networks of the other folds agree on it.
    """

    name: str
    fold: int = -1
    dice: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None


@dataclass(frozen=True)
class SegmenterCard:
    """Description of a segmenter, stored with its weights.

    Attributes
    ----------
    network : SegmenterConfig
    class_values : tuple of int
        Label values of the classes without background, in the order of the network's.
    class_names : tuple of str
        One a class.
    channel_names : tuple of str
        Contrasts, in the order of the network's.
    scales : tuple of ChannelScale
        One a contrast.
    spacing : (z, y, x)
        Voxel size in mm that images are resampled to.
    patch : tuple of int
        Voxels (z, y, x) of a training patch.
    cases : tuple of CaseEntry
    folds : int
        How many further networks the file holds, each trained without the cases of its fold.
    dice : dict
        By class name and "mean": mean, low, high over cases that the network measured had not
        seen, with a 95 % bootstrap interval, and their number; empty where none were left out.
    trust : dict
        What the agreement of the folds says; see :mod:`napari_medgs.learning.trust`.
    training : dict
        Settings and numbers of the training: steps, seconds.
    parameters : int
    licence : str
        Under which the weights may be used; empty where the author said nothing.
    note : str

    Raises
    ------
    FileError
        When the values do not describe a segmenter.
    """

    network: SegmenterConfig
    class_values: tuple[int, ...]
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    scales: tuple[ChannelScale, ...]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    cases: tuple[CaseEntry, ...] = ()
    folds: int = 0
    dice: dict[str, Any] = field(default_factory=dict)
    trust: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    licence: str = ""
    note: str = NOTE

    def __post_init__(self) -> None:
        classes, channels = self.network.classes - 1, self.network.channels
        good = (
            len(self.class_values) == len(self.class_names) == classes <= MOST_CLASSES
            and len(set(self.class_values)) == classes
            and all(1 <= v <= 65_535 for v in self.class_values)
            and len(self.channel_names) == len(self.scales) == channels
            and all(0 < s < 1e4 for s in self.spacing)
            and all(1 <= n <= 1024 for n in self.patch)
            and all(s.deviation > 0 for s in self.scales)
            and 0 <= self.folds <= MOST_FOLDS
        )
        if not good:
            raise FileError("The card does not describe a segmenter.")

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes by label value."""
        return dict(zip(self.class_values, self.class_names, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {**asdict(self), "network": self.network.to_dict()}

    @classmethod
    def from_dict(cls, record: Any) -> SegmenterCard:
        """Return the card that :meth:`to_dict` described; unknown keys are ignored.

        Raises
        ------
        FileError
            When the values describe no segmenter.
        """
        try:
            made: SegmenterCard = checked_record(cls, record, "card")
        except ParameterError as error:
            raise FileError(f"The card is damaged: {error}") from None
        return made

    def check_image(self, volume: Volume) -> None:
        """Refuse an image that the segmenter cannot read.

        Raises
        ------
        ImageError
            When it has another number of contrasts, or in another order by the names of its
            files, or is a stack where slices are read.
        """
        wanted = len(self.channel_names)
        if volume.channels != wanted:
            listed = ", ".join(self.channel_names)
            raise ImageError(
                f"The image has {volume.channels} contrast{'s' * (volume.channels != 1)}, the "
                f"model reads {wanted} ({listed}); give one file a contrast in this order."
            )
        self._check_order(volume.channel_names)
        if self.network.ndim == 3 and 1 in volume.shape and 1 not in self.patch:
            raise ImageError(
                f"The image has shape {volume.shape}, a single slice; the model was trained on "
                "volumes."
            )

    def _check_order(self, names: tuple[str, ...]) -> None:
        """Refuse contrasts whose names are the model's, or nnU-Net's numbers, in another order."""
        if len(set(names)) < 2:
            return
        given = [part.casefold() for part in differing_parts(names)]
        known = [name.casefold() for name in self.channel_names]
        numbers = [f"{k:04d}" for k in range(len(known))]
        for order in (known, numbers):
            if given == order:
                return
            if sorted(given) == sorted(order):
                raise ImageError(
                    f"The contrasts are in another order ({', '.join(names)}) than the model "
                    f"reads them ({', '.join(self.channel_names)}); give them in its order."
                )

    def working_shape(self, grid: Grid) -> tuple[int, int, int]:
        """Return the shape (z, y, x) of a grid when it is resampled to the model's spacing."""
        shape = [
            max(1, round(n * own / wanted)) if n > 1 else 1
            for n, own, wanted in zip(grid.shape, grid.spacing, self.spacing, strict=True)
        ]
        return shape[0], shape[1], shape[2]

    def with_numbers(self, **numbers: Any) -> SegmenterCard:
        """Return the card with some entries replaced."""
        return replace(self, **numbers)


def scale_channel(data: NDArray[Any], scale: ChannelScale) -> Floats:
    """Return the intensities of one contrast as the network reads them.

    Parameters
    ----------
    data : (Z, Y, X) ndarray
    scale : ChannelScale

    Returns
    -------
    (Z, Y, X) ndarray of float32

    Examples
    --------
    >>> import numpy as np
    >>> scale_channel(np.array([[[1.0, 3.0]]]), ChannelScale("fixed", 0, 2, 1, 2)).tolist()
    [[[0.0, 0.5]]]
    """
    values = np.array(data, np.float32)  # a copy
    if scale.kind == "fixed":
        np.clip(values, scale.low, scale.high, out=values)
        mean, deviation = scale.mean, scale.deviation
    else:
        # Voxels of exactly 0 beside others are padding or a removed skull.
        empty = values == 0
        used = values[~empty] if 0.1 < empty.mean() < 0.99 else values
        low, high = np.percentile(used[:: max(1, used.size // 200_000)], (0.1, 99.9))
        np.clip(values, min(low, 0.0), high, out=values)
        used = values[~empty] if used is not values else values
        mean, deviation = float(used.mean(dtype=np.float64)), float(used.std(dtype=np.float64))
    values -= np.float32(mean)
    values /= np.float32(max(deviation, 1e-6))
    return values
