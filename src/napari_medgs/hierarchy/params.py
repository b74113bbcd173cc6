"""Settings of the tree of parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from napari_medgs._util.settings import check, setting

MERGING = "Merging"


class MergeSettings(NamedTuple):
    """Settings of merging with every None replaced."""

    equalization: float
    boundary_power: float
    length_power: float
    noise: float


ONE_CONTRAST = MergeSettings(0.0, 0.5, 1.5, 1.0)
SEVERAL_CONTRASTS = MergeSettings(0.5, 0.75, 1.0, 2.0)


@dataclass(frozen=True)
class PartParams:
    """How neighboring cells are merged; see the methods page for the cost.

    Attributes
    ----------
    equalization : float or None
        Part of histogram equalization in the contrasts that are compared; None for 0 with one
        contrast and 0.5 with several.
    boundary_power : float or None
        Exponent of the boundary's strength; None for 0.5 with one contrast and 0.75 with several.
    length_power : float or None
        Exponent of the boundary's length; None for 1.5 with one contrast and 1 with several.
    noise : float or None
        Variance added to every contrast, in units of the usual variance within cells; None for
        1 with one contrast and 2 with several.
    threads : int or None
        CPU threads for rendering and fitting; None for all. Results do not depend on it.

    Raises
    ------
    ParameterError
        When a value is out of its range.

    Examples
    --------
    >>> PartParams(noise=0)
    Traceback (most recent call last):
    napari_medgs.errors.ParameterError: noise must be above 0, not 0.
    >>> PartParams().chosen(contrasts=1).length_power
    1.5
    """

    equalization: float | None = setting(
        None,
        low=0,
        high=1,
        step=0.25,
        none="0 with one contrast, 0.5 with several",
        help="Part of histogram equalization in the contrasts that are compared.",
        group=MERGING,
    )
    boundary_power: float | None = setting(
        None,
        low=0,
        high=4,
        step=0.25,
        none="0.5 with one contrast, 0.75 with several",
        help="How much a strong boundary between two regions keeps them apart.",
        group=MERGING,
    )
    length_power: float | None = setting(
        None,
        low=0,
        high=4,
        step=0.25,
        none="1.5 with one contrast, 1 with several",
        help="How much a long common boundary lets two regions merge.",
        group=MERGING,
    )
    noise: float | None = setting(
        None,
        above=0,
        step=0.25,
        none="1 with one contrast, 2 with several",
        help="Variance that counts as noise, in units of the usual variance within cells.",
        group=MERGING,
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", help="CPU threads to use.", group="Common options"
    )

    def __post_init__(self) -> None:
        check(self)

    def chosen(self, contrasts: int) -> MergeSettings:
        """Return the settings of merging for a number of contrasts.

        Returns
        -------
        MergeSettings
        """
        default = ONE_CONTRAST if contrasts == 1 else SEVERAL_CONTRASTS
        given = {name: getattr(self, name) for name in MergeSettings._fields}
        return default._replace(**{k: float(v) for k, v in given.items() if v is not None})
