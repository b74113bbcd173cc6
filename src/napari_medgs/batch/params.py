"""Settings of a batch beside those of every fit: how images are read and work is distributed."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._util.settings import check, setting
from napari_medgs.compression.params import Profile
from napari_medgs.data.intensities import parse_fill
from napari_medgs.errors import ParameterError
from napari_medgs.io.fourth_axis import check_volume


@dataclass(frozen=True)
class BatchParams:
    """How the images of a batch are read and where they are fitted.

    Attributes
    ----------
    spacing : (z, y, x) in mm, optional
        For images whose files have none; see :func:`napari_medgs.io.read_volume`.
    assume_identity : bool
        Accept NIfTI files without a usable affine.
    volume : int, optional
        Which volume to read of images with several in time, from 1.
    fill_nan : float or "background"
        What stands for NaN; see :meth:`napari_medgs.Volume.fill_nan`.
    resample : bool
        Bring masks of another grid onto their images' voxels, by the nearest label, and further
        contrasts onto those of the first, linearly.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://host:8786``); by default the fits run in processes
        on this machine. Its workers must see the same files under the same paths.
    workers : int, optional
        Processes on this machine; by default as many as CPUs and free memory allow.
    overwrite : bool
        Fit images again whose field exists already.
    compress : {"small", "faithful", "exact"}, optional
        Write compressed fields, ``NAME.medgs``, by this profile; fine-tuning works towards image
        and mask.

    Raises
    ------
    ParameterError
        When a value is out of range, or workers and scheduler are both given.

    Examples
    --------
    >>> from napari_medgs.batch import BatchParams
    >>> BatchParams(workers=2).overwrite
    False
    """

    spacing: tuple[float, float, float] | None = None
    assume_identity: bool = False
    volume: int | None = None
    fill_nan: float | str = "background"
    resample: bool = False
    scheduler: str | None = setting(
        None,
        none="processes on this machine",
        label="Dask scheduler",
        help="A Dask scheduler such as tcp://host:8786, whose workers see the same files.",
    )
    workers: int | None = setting(
        None,
        low=1,
        none="by CPUs and free memory",
        label="Processes",
        help="Processes on this machine.",
    )
    overwrite: bool = setting(False, label="Overwrite", help="Fit images again that have a field.")
    compress: Profile | None = setting(
        None,
        none="exact fields",
        label="Compress",
        help="Write compressed fields by this profile.",
    )

    def __post_init__(self) -> None:
        check(self)
        parse_fill(self.fill_nan)
        check_volume(self.volume)
        if self.workers is not None and self.scheduler is not None:
            raise ParameterError(
                "The scheduler decides the number of workers: give only one of the two."
            )
