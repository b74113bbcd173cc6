"""Settings of tissue classes."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._util.settings import LARGEST_SEED, check, setting

MOST = 12
GROUP = "Tissues"


@dataclass(frozen=True)
class TissueParams:
    """How an image is divided into classes of intensity.

    Attributes
    ----------
    classes : int or None
        2 to 12; None to choose by the likelihood of what was held out.
    bias : bool
        Whether intensities vary smoothly over the image, as in MR.
    bias_degree : int
        Largest total degree of the Legendre polynomials.
    rounds : int or None
        Rounds at the voxels after those at the Gaussians; None for 3 with one contrast and 0
        with several. With 0 a voxel's class comes from its Gaussians alone.
    padding : bool
        Whether the padding around the image is left out, of skull-stripped heads or padded CT:
        voxels that have exactly the lowest value of every contrast, where they are at least a
        hundredth of the image; else those with the value that half of the border has, where they
        are a tenth.
    seed : int
        Of all random choices.
    threads : int or None
        CPU threads; None for all. Results do not depend on it.

    Raises
    ------
    ParameterError
        When a value is out of its range.

    Examples
    --------
    >>> TissueParams(classes=1)
    Traceback (most recent call last):
    napari_medgs.errors.ParameterError: classes must be from 2 to 12, not 1.
    """

    classes: int | None = setting(
        None,
        low=2,
        high=MOST,
        none="chosen by held-out likelihood",
        help="Number of classes.",
        group=GROUP,
        metavar="K",
    )
    bias: bool = setting(
        False,
        help="Intensities vary smoothly over the image, as in MR; estimate and remove that.",
        group=GROUP,
    )
    bias_degree: int = setting(
        2, low=1, high=4, help="Largest degree of the polynomials of --bias.", group=GROUP
    )
    rounds: int | None = setting(
        None,
        low=0,
        high=20,
        none="3 with one contrast, 0 with several",
        help="Rounds at the voxels after those at the Gaussians; with 0 a voxel's class comes "
        "from its Gaussians alone.",
        group=GROUP,
    )
    padding: bool = setting(
        True,
        help="Leave out the padding of skull-stripped or padded images: voxels with exactly the "
        "lowest value in all contrasts, or that of most of the border, if there are many.",
        group=GROUP,
    )
    seed: int = setting(
        0,
        low=0,
        high=LARGEST_SEED,
        help="Seed of all random choices.",
        group="Common options",
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", help="CPU threads to use.", group="Common options"
    )

    def __post_init__(self) -> None:
        check(self)

    def rounds_for(self, contrasts: int) -> int:
        """Return the rounds at the voxels for a number of contrasts."""
        if self.rounds is not None:
            return self.rounds
        return 3 if contrasts == 1 else 0
