"""Settings of a fit: one frozen dataclass for the API, the command line and the widget."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_medgs.data.field import Blend
from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class FitParams:
    """How to fit a field to a volume.

    Attributes
    ----------
    gaussians : int, optional
        Number of Gaussians; by default chosen from the size of the foreground and, in
        small images, its fine detail.
    quality : float, optional
        Stop when the image reaches this PSNR in dB, on the slices that are fitted: Gaussians are
        added until it does, then (``normalized`` blend) left out or merged as far as it, labels
        and frames between the slices can do without them.
    time_limit : float, optional
        Stop after so many seconds of wall time.
    iterations : int
        Optimiser steps of one round; each step sees every voxel.
    fold : int
        Degree of the fold polynomial, 0 to 3; 1 is a general 3D Gaussian.
    blend : {"normalized", "sum", "alpha"}
        How overlapping Gaussians combine.
    slice_axis : int, optional
        Axis (of z, y, x) along which Gaussians fold; the coarsest by default.
    holdout : int, optional
        Fit every K-th slice only, and report the quality of the slices between.
    interpolate : bool, optional
        Fit what must lie between the slices as well, along the motion of the structures. By
        default where slices are left out, or lie more than 1.5 times as far apart as pixels (in
        volumes of up to 32 million voxels, and if no ``quality`` of the slices is asked for).
    lambda_img, lambda_seg : float
        Loss weights of image and mask.
    freeze_geometry : bool
        Keep the Gaussians of the initial field and its image; fit the class logits only.
    seed : int
        Seed of all random choices.
    backend : str
        "auto", "cpu", "cuda", "gsplat" or "reference".
    threads : int, optional
        CPU threads; all by default.
    loss : {"l2", "l1"}
        Squared or absolute image errors.
    percentiles : (float, float)
        Percentiles of the intensities that become 0 and 1; what lies outside is clipped.
    cutoff : float
        Compact support: Gaussians end where q exceeds this.
    empty_slices_unlabelled : bool
        Take slices whose mask is empty as not labelled, rather than as background: for masks
        painted on some slices only.
    mask_slices : tuple of int, optional
        Slices (along the slice axis) whose labels are to be believed; all by default.
    checkpoint : str, optional
        Field file that is rewritten every ``checkpoint_every`` steps.
    checkpoint_every : int
        Steps between checkpoints; 0 writes none.
    positions_every : int
        Steps between snapshots of the centres; 0 keeps none.
    """

    gaussians: int | None = None
    quality: float | None = None
    time_limit: float | None = None
    iterations: int = 80
    fold: int = 3
    blend: Blend = "normalized"
    slice_axis: int | None = None
    holdout: int | None = None
    interpolate: bool | None = None
    lambda_img: float = 1.0
    lambda_seg: float = 1.0
    freeze_geometry: bool = False
    seed: int = 0
    backend: str = "auto"
    threads: int | None = None
    loss: Literal["l2", "l1"] = "l2"
    percentiles: tuple[float, float] = (0.5, 99.5)
    cutoff: float = 9.0
    empty_slices_unlabelled: bool = False
    mask_slices: tuple[int, ...] | None = None
    checkpoint: str | None = None
    checkpoint_every: int = 0
    positions_every: int = 0

    def __post_init__(self) -> None:
        self._check(
            "gaussians",
            self.gaussians is None or 1 <= self.gaussians <= 20_000_000,
            "from 1 to 20 million",
        )
        self._check("quality", self.quality is None or 5 <= self.quality <= 100, "5 to 100 dB")
        self._check(
            "time_limit",
            self.time_limit is None or self.time_limit > 0,
            "a positive number of seconds",
        )
        self._check("iterations", 1 <= self.iterations <= 100_000, "from 1 to 100000")
        self._check("fold", self.fold in (0, 1, 2, 3), "0, 1, 2 or 3")
        self._check(
            "blend", self.blend in ("normalized", "sum", "alpha"), "normalized, sum or alpha"
        )
        self._check("slice_axis", self.slice_axis in (None, 0, 1, 2), "0, 1 or 2")
        self._check("holdout", self.holdout is None or self.holdout >= 2, "2 or more")
        self._check("lambda_img", self.lambda_img >= 0, "0 or more")
        self._check("lambda_seg", self.lambda_seg >= 0, "0 or more")
        self._check("threads", self.threads is None or self.threads >= 1, "1 or more")
        self._check("loss", self.loss in ("l2", "l1"), "l2 or l1")
        low, high = self.percentiles
        self._check("percentiles", 0 <= low < high <= 100, "two rising numbers from 0 to 100")
        self._check("cutoff", 1 <= self.cutoff <= 50, "from 1 to 50")
        self._check("checkpoint_every", self.checkpoint_every >= 0, "0 or more")
        self._check("positions_every", self.positions_every >= 0, "0 or more")
        if self.checkpoint_every and not self.checkpoint:
            raise ParameterError("Checkpoints need a file to go to: set checkpoint as well.")
        if self.lambda_img == 0 and self.lambda_seg == 0:
            raise ParameterError("lambda_img and lambda_seg are both 0: nothing would be fitted.")

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise ParameterError(f"{name} must be {wanted}, not {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)
