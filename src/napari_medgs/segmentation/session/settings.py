"""All prompts of a session except the stroke image, with the solver's settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Box, Point

# Names of keys in files of earlier versions.
EARLIER_NAMES = {"unlabelled": "unlabeled", "painted": "fully_labeled"}

# Settings of the solver that earlier versions did not have, as these worked without them.
BEFORE = {"weigh_contrasts": False}


@dataclass(frozen=True)
class Settings:
    """All prompts except the stroke image; immutable, so that the history can keep them.

    Attributes
    ----------
    unlabeled : int
        The value in the stroke image that carries no label.
    background : int, optional
        The value of background strokes; see :class:`~napari_medgs.segmentation.Prompts`.
    fully_labeled : tuple of (axis, index)
        Slices in which unlabeled voxels are background.
    points : tuple of Point
    boxes : tuple of Box
    locked : frozenset of int
        Classes that keep their voxels.
    initial_margin : float
        See :class:`~napari_medgs.segmentation.Prompts`.
    params : SegmentParams

    Examples
    --------
    >>> settings = Settings(background=9, points=(Point((1.0, 2.0, 3.0), 1),))
    >>> Settings.from_dict(settings.to_dict()) == settings
    True
    """

    unlabeled: int = 0
    background: int | None = None
    fully_labeled: tuple[tuple[int, int], ...] = ()
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    locked: frozenset[int] = frozenset()
    initial_margin: float = setting(1.0, low=0, high=1e6)
    params: SegmentParams = field(default_factory=SegmentParams)

    def __post_init__(self) -> None:
        check(self)

    def with_complete(
        self, axis: int, index: int, complete: bool = True
    ) -> tuple[tuple[int, int], ...]:
        """Return ``fully_labeled`` with or without a slice.

        Parameters
        ----------
        axis, index : int
        complete : bool

        Returns
        -------
        tuple of (axis, index)
        """
        others = set(self.fully_labeled) - {(axis, index)}
        return tuple(sorted(others | {(axis, index)} if complete else others))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values.

        Returns
        -------
        dict
        """
        record = asdict(self)
        record["locked"] = sorted(self.locked)
        record["params"] = self.params.to_dict()
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Settings:
        """Make settings from :meth:`to_dict`, those of earlier versions included.

        Parameters
        ----------
        record : dict

        Returns
        -------
        Settings

        Raises
        ------
        ParameterError
            When the record is damaged, or a setting does not exist or is out of its range.
        """
        record = {EARLIER_NAMES.get(key, key): value for key, value in record.items()}
        missing = [entry.name for entry in fields(cls) if entry.name not in record]
        if missing:
            raise ParameterError(f"{missing[0]} is missing.")
        if isinstance(record["params"], dict):
            record["params"] = {**BEFORE, **record["params"]}
        settings: Settings = checked_record(cls, record)
        return settings
