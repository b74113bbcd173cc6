"""Settings of a fit: one frozen dataclass for the API, the command line and the widget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_medgs._text import well_formed
from napari_medgs._util.settings import LARGEST_SEED, check, setting
from napari_medgs.data.field import Blend
from napari_medgs.errors import ParameterError
from napari_medgs.fitting.advanced import AdvancedFitParams

MODEL, LOSS, STOP = "Model", "Loss", "When to stop"
START, COMMON = "Starting from a field", "Common options"


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
        Optimizer steps of one round; each step sees every voxel. With more than 20 classes it sees
        labels in turns, and a round may take fewer steps where only noise is left of the image.
    fold : int
        Degree of the fold polynomial, 0 to 3; 1 is a general 3D Gaussian.
    blend : {"normalized", "sum", "alpha"}
        How overlapping Gaussians combine.
    slice_axis : int, optional
        Axis (of z, y, x) along which Gaussians fold; the coarsest by default.
    holdout : int, optional
        Fit every K-th slice only, and report the quality of the slices between.
    interpolate : bool, optional
        Fit what must lie between the slices as well: interpolated along the motion of the
        structures, by a cubic or a spline, as predicts left-out slices best. By default where
        slices are left out, or lie more than 1.5 times as far apart as pixels (in volumes of up
        to 32 million voxels, and if no ``quality`` of the slices is asked for).
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
    empty_slices_unlabeled : bool
        Take slices whose mask is empty as unlabeled, rather than as background: for masks
        painted on some slices only.
    mask_slices : tuple of int, optional
        Slices (along the slice axis) whose labels are to be believed; all by default.
    checkpoint : str, optional
        Field file that is rewritten every ``checkpoint_every`` steps.
    checkpoint_every : int
        Steps between checkpoints; 0 writes none.
    positions_every : int
        Steps between snapshots of the centers; 0 keeps none.
    advanced : AdvancedFitParams
        Hyper-parameters of all stages, for ablations.

    Raises
    ------
    ParameterError
        When a setting is out of its range or contradicts another one.

    Examples
    --------
    >>> from napari_medgs import FitParams
    >>> FitParams(quality=40, time_limit=60).iterations
    80
    >>> FitParams(fold=4)
    Traceback (most recent call last):
    napari_medgs.errors.ParameterError: fold must be from 0 to 3, not 4.
    """

    gaussians: int | None = setting(
        None,
        low=1,
        high=20_000_000,
        none="by the size of the foreground",
        label="Gaussians",
        group=MODEL,
        help="Number of Gaussians.",
    )
    quality: float | None = setting(
        None,
        low=5,
        high=100,
        unit="dB",
        step=1,
        none="no target",
        label="Target PSNR",
        group=STOP,
        metavar="DB",
        help="Stop at this PSNR (dB); Gaussians are added until it is reached.",
    )
    time_limit: float | None = setting(
        None,
        low=0.01,
        unit="s",
        none="no limit",
        label="Time limit",
        group=STOP,
        metavar="S",
        help="Stop after this many seconds of wall time.",
    )
    iterations: int = setting(
        80,
        low=1,
        high=100_000,
        label="Iterations",
        group=STOP,
        help="Optimizer steps per round; each step sees every voxel.",
    )
    fold: int = setting(
        3,
        low=0,
        high=3,
        label="Fold degree",
        group=MODEL,
        help="Degree of the polynomial by which the centers of Gaussians move from slice to "
        "slice; 1 is a general 3D Gaussian.",
    )
    blend: Blend = setting(
        "normalized", label="Blend", group=MODEL, help="How overlapping Gaussians combine."
    )
    slice_axis: int | None = setting(
        None,
        low=0,
        high=2,
        none="the axis of the coarsest spacing",
        label="Slice axis",
        group=MODEL,
        help="Axis along which Gaussians fold: z (0), y (1) or x (2).",
    )
    holdout: int | None = setting(
        None,
        low=2,
        none="fit all slices",
        label="Hold out slices",
        group=LOSS,
        metavar="every:K",
        help="Fit every K-th slice only; report the quality on the held-out slices between.",
    )
    interpolate: bool | None = setting(
        None,
        none="where slices are held out or far apart",
        label="Fit between slices",
        group=LOSS,
        help="Fit interpolated intensities between the slices too: along the motion of "
        "structures, by a cubic or a spline, as predicts left-out slices best.",
    )
    lambda_img: float = setting(
        1.0,
        low=0,
        high=1e6,
        label="Image loss weight",
        group=LOSS,
        help="Weight of the image loss.",
    )
    lambda_seg: float = setting(
        1.0,
        low=0,
        high=1e6,
        label="Mask loss weight",
        group=LOSS,
        help="Weight of the mask loss.",
    )
    freeze_geometry: bool = setting(
        False,
        label="Freeze geometry",
        group=START,
        help="Keep the initial field's Gaussians and image; fit the class logits only.",
    )
    seed: int = setting(
        0, low=0, high=LARGEST_SEED, label="Seed", group=COMMON, help="Seed of all random choices."
    )
    backend: str = setting(
        "auto",
        choices=("auto", "cpu", "cuda", "gsplat", "reference"),
        label="Backend",
        group=COMMON,
        help="Rendering engine; auto: a CUDA GPU if there is one, else the CPU.",
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", label="CPU threads", group=COMMON, help="CPU threads to use."
    )
    loss: Literal["l2", "l1"] = setting(
        "l2", label="Image loss", group=LOSS, help="Squared (l2) or absolute (l1) image errors."
    )
    percentiles: tuple[float, float] = setting(
        (0.5, 99.5),
        low=0,
        high=100,
        label="Intensity percentiles",
        group=LOSS,
        metavar="LOW HIGH",
        help="Intensities at these percentiles become 0 and 1; values outside are clipped.",
    )
    cutoff: float = setting(
        9.0,
        low=1,
        high=50,
        label="Cutoff",
        group=MODEL,
        help="Squared Mahalanobis distance at which Gaussians end.",
    )
    empty_slices_unlabeled: bool = setting(
        False,
        label="Empty slices are unlabeled",
        group=LOSS,
        aliases=("empty_slices_unlabeled",),
        help="The mask was painted on some slices only: slices where it is empty are unlabeled, "
        "not background.",
    )
    mask_slices: tuple[int, ...] | None = None
    checkpoint: str | None = None
    checkpoint_every: int = setting(
        0,
        low=0,
        label="Steps between checkpoints",
        group=START,
        metavar="N",
        help="Write the unfinished field to OUT every N steps; continue with --from OUT.",
    )
    positions_every: int = setting(
        0,
        low=0,
        label="Steps between snapshots",
        group=START,
        metavar="N",
        help="Steps between saved positions.",
    )

    advanced: AdvancedFitParams = field(default_factory=AdvancedFitParams)

    def __post_init__(self) -> None:
        check(self)
        if self.percentiles[0] >= self.percentiles[1]:
            raise ParameterError(
                "percentiles must be two increasing numbers from 0 to 100, not "
                f"{self.percentiles!r}."
            )
        if self.checkpoint_every and not self.checkpoint:
            raise ParameterError("Checkpoints need a file to go to: set checkpoint as well.")
        if self.lambda_img == 0 and self.lambda_seg == 0:
            raise ParameterError("lambda_img and lambda_seg are both 0: nothing would be fitted.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values; ``advanced`` only where it is not the default.

        Returns
        -------
        dict
        """
        record = asdict(self)
        if self.checkpoint is not None:
            record["checkpoint"] = well_formed(self.checkpoint)
        if self.advanced == AdvancedFitParams():
            del record["advanced"]
        return record
