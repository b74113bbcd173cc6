"""Settings of a compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError
from napari_medgs.io.codec.columns import Quantization

Profile = Literal["exact", "faithful", "small"]
VALUE_STEP = 0.75
"""Of intensities at coarse steps: 4 % fewer bytes at equal PSNR on noisy CT, 1 % more to less
elsewhere. Other columns have steps of equal loss per byte after fine-tuning, too."""


@dataclass(frozen=True)
class CompressParams:
    """How a field is made smaller.

    At most one of ``max_loss``, ``max_bytes``, ``bits_per_voxel`` and ``step`` is given; the
    profile alone decides otherwise.

    Attributes
    ----------
    profile : {"small", "faithful", "exact"}
        small: about a twelfth of the size, straight folds, no weights. faithful: about a seventh,
        all parameters. exact: the same bits, about 5/6 of the size.
    max_loss : float, optional
        Largest loss of PSNR in dB, against the image; the smallest file that keeps it.
    max_bytes : int, optional
        Largest file.
    bits_per_voxel : float, optional
        Largest file, in bits per voxel of the field's grid.
    step : float, optional
        Factor of all steps: twice as coarse is about a bit less for each parameter.
    iterations : int, optional
        Steps of fine-tuning; 60 for faithful, 180 for small by default; 0 leaves it out.
    preview : float
        Gaussians of a preview at the beginning of the file, as a share of all.
    backend : str
    threads : int, optional
        CPU threads; all by default.

    Examples
    --------
    >>> from napari_medgs.compression import CompressParams
    >>> CompressParams(max_loss=0.3).profile
    'small'
    """

    profile: Profile = setting(
        "small",
        help="Size against quality: small is a twelfth of the size, straight folds without "
        "weights; faithful a seventh, with all parameters; exact keeps every bit.",
    )
    max_loss: float | None = setting(
        None,
        low=0.0,
        high=20.0,
        unit="dB",
        metavar="DB",
        help="The smallest file that loses at most so much PSNR against the image.",
    )
    max_bytes: int | None = setting(
        None, low=100, high=2**40, metavar="N", help="The best file of at most so many bytes."
    )
    bits_per_voxel: float | None = setting(
        None, above=0.0, high=64.0, metavar="X", help="The same, in bits per voxel."
    )
    step: float | None = setting(
        None,
        low=0.05,
        high=12.0,
        metavar="X",
        help="Factor of all steps; 1 is fine, 3 coarse. By default the profile's.",
    )
    iterations: int | None = setting(
        None,
        low=0,
        high=10_000,
        metavar="N",
        none="60, or 180 for small",
        help="Steps of fine-tuning; 0 rounds only.",
    )
    preview: float = setting(
        0.0,
        low=0.0,
        high=0.5,
        metavar="SHARE",
        help="Begin the file with a field of so large a share of the Gaussians.",
    )
    backend: str = setting("auto", help="Rendering engine.")
    threads: int | None = setting(None, low=1, high=4096, help="CPU threads to use.")

    def __post_init__(self) -> None:
        check(self)
        wanted = ("max_loss", "max_bytes", "bits_per_voxel", "step")
        given = [name for name in wanted if getattr(self, name) is not None]
        if len(given) > 1:
            raise ParameterError(
                f"{' and '.join(given)} cannot hold at once: give one of {', '.join(wanted)}."
            )
        if self.profile == "exact" and given:
            raise ParameterError(f"An exact file has one size: leave out {given[0]}.")

    @property
    def steps(self) -> int:
        """Steps of fine-tuning."""
        if self.iterations is not None:
            return self.iterations
        return 180 if self.profile == "small" else 60

    def quantization(self, step: float | None = None) -> Quantization:
        """Return how finely parameters are stored, with another step where one is given."""
        usual = 2.5 if self.profile == "small" else 1.0
        chosen = step or self.step or usual
        return quantization_of(chosen, all_columns=self.profile != "small")


def quantization_of(step: float, *, all_columns: bool) -> Quantization:
    """Return the quantization of a step, with all parameters or with what matters most."""
    if all_columns:
        return Quantization(step=step)
    return Quantization(step, 1, weights=False, value_step=VALUE_STEP)
