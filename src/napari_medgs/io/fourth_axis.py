"""What the fourth axis of an image file holds: contrasts, or volumes of which one is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_medgs.errors import ImageError, ParameterError

FEW = 6
"""A fourth axis of more entries than these holds volumes, unless the file says contrasts."""

Says = Literal["volumes", "channels"] | None
"""What a file's header says of the axis; None where it does not say."""

SOURCE_KEY = "volumes"
"""Entry of ``Grid.source`` where all volumes were read as channels."""


@dataclass(frozen=True)
class FourthAxis:
    """The fourth axis of a file.

    Attributes
    ----------
    count : int
        Its entries; 1 where the file has no such axis.
    volumes : bool
        Whether they are volumes (time points, directions) and not contrasts of one image.
    step : float or None
        Seconds between volumes, where the file says so.
    """

    count: int
    volumes: bool = False
    step: float | None = None

    def to_source(self) -> dict[str, Any]:
        """Return the entries for ``Grid.source`` where all volumes are read."""
        return {SOURCE_KEY: {"count": self.count, "step_s": self.step}} if self.volumes else {}


def fourth_axis(count: int, says: Says = None, step: float | None = None) -> FourthAxis:
    """Decide what a fourth axis holds.

    Parameters
    ----------
    count : int
        Its entries.
    says : "volumes", "channels" or None
        What the file's header says of it.
    step : float, optional
        Seconds between entries.

    Returns
    -------
    FourthAxis

    Examples
    --------
    >>> from napari_medgs.io.fourth_axis import fourth_axis
    >>> fourth_axis(4).volumes, fourth_axis(4, "volumes").volumes, fourth_axis(300).volumes
    (False, True, True)
    """
    volumes = count > 1 and (says == "volumes" or (says is None and count > FEW))
    return FourthAxis(count, volumes, step if volumes else None)


def chosen_entries(
    path: str | Path, axis: FourthAxis, volume: int | None, every: bool = False
) -> slice:
    """Return the entries of the fourth axis that are read.

    Parameters
    ----------
    path : str or Path
        For messages.
    axis : FourthAxis
    volume : int or None
        Number of the entry to read, from 1.
    every : bool
        Read all entries, whatever they are.

    Returns
    -------
    slice

    Raises
    ------
    ImageError
        When the axis holds volumes and none is chosen.
    ParameterError
        When there is no such volume.

    Examples
    --------
    >>> from napari_medgs.io.fourth_axis import FourthAxis, chosen_entries
    >>> chosen_entries("scan.nii", FourthAxis(300, volumes=True), 2)
    slice(1, 2, None)
    """
    check_volume(volume)
    if volume is not None:
        if volume > axis.count:
            has = f"{axis.count} volumes" if axis.count > 1 else "one volume"
            raise ParameterError(f"{path}: has {has}; there is no volume {volume}.")
        return slice(volume - 1, volume)
    if axis.volumes and not every:
        step = "" if axis.step is None else f", {axis.step:.4g} s apart"
        raise ImageError(
            f"{path}: holds {axis.count} volumes along its fourth axis{step}; choose one from 1 "
            f"to {axis.count}, as in --volume 1."
        )
    return slice(0, axis.count)


def check_volume(volume: int | None) -> None:
    """Refuse numbers of volumes that are none.

    Raises
    ------
    ParameterError
        When the number is no integer from 1.
    """
    if volume is not None and (type(volume) is not int or volume < 1):
        raise ParameterError(f"A volume is chosen by its number, from 1, not {volume!r}.")


def entry_names(stem: str, axis: FourthAxis, taken: slice) -> tuple[str, ...]:
    """Return a name for each entry that is read.

    Parameters
    ----------
    stem : str
        The file's name without suffix.
    axis : FourthAxis
    taken : slice
        Of :func:`chosen_entries`.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from napari_medgs.io.fourth_axis import FourthAxis, entry_names
    >>> entry_names("scan", FourthAxis(2), slice(0, 2))
    ('scan [0]', 'scan [1]')
    >>> entry_names("scan", FourthAxis(40, volumes=True), slice(4, 5))
    ('scan volume 5',)
    """
    if axis.count == 1:
        return (stem,)
    numbers = range(taken.start, taken.stop)
    if axis.volumes or len(numbers) == 1:
        return tuple(f"{stem} volume {n + 1}" for n in numbers)
    return tuple(f"{stem} [{n}]" for n in numbers)
