"""Settings of the tree of parts."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._util.settings import check, setting


@dataclass(frozen=True)
class PartParams:
    """How neighboring cells are merged; see the methods page for the cost.

    Attributes
    ----------
    boundary_power : float or None
        Exponent of the boundary's strength; None for 0.5 with one contrast and 0.75 with several.
    length_power : float or None
        Exponent of the boundary's length; None for 1.5 with one contrast and 1 with several.
    noise : float
        Variance added to every contrast, in units of the variance within the cells.
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
    """

    boundary_power: float | None = setting(
        None,
        low=0,
        high=4,
        step=0.25,
        none="0.5 with one contrast, 0.75 with several",
        help="How much a strong boundary between two regions keeps them apart.",
        group="Merging",
    )
    length_power: float | None = setting(
        None,
        low=0,
        high=4,
        step=0.25,
        none="1.5 with one contrast, 1 with several",
        help="How much a long common boundary lets two regions merge.",
        group="Merging",
    )
    noise: float = setting(
        1.0,
        above=0,
        step=0.25,
        help="Variance that counts as noise, in units of the variance within the cells.",
        group="Merging",
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", help="CPU threads to use.", group="Common options"
    )

    def __post_init__(self) -> None:
        check(self)

    def powers(self, contrasts: int) -> tuple[float, float]:
        """Return the exponents of strength and length for a number of contrasts.

        Returns
        -------
        boundary, length : float
        """
        boundary = 0.5 if contrasts == 1 else 0.75
        length = 1.5 if contrasts == 1 else 1.0
        if self.boundary_power is not None:
            boundary = self.boundary_power
        if self.length_power is not None:
            length = self.length_power
        return boundary, length
