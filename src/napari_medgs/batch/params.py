"""Settings of a cohort beside those of every fit: reading, and sharing out the work."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class CohortParams:
    """How a cohort is read and shared out.

    Attributes
    ----------
    spacing : (z, y, x) in mm, optional
        For images that do not say; see :func:`napari_medgs.io.read_volume`.
    assume_identity : bool
        Accept NIfTI files without a usable affine.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://host:8786``); by default a cluster of processes is
        started on this machine. Its workers must see the same files under the same paths.
    workers : int, optional
        Processes of the local cluster; by default as many as CPUs and free memory allow.
    again : bool
        Fit also what is finished already.
    """

    spacing: tuple[float, float, float] | None = None
    assume_identity: bool = False
    scheduler: str | None = None
    workers: int | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ParameterError(f"workers must be 1 or more, not {self.workers}.")
        if self.workers is not None and self.scheduler is not None:
            raise ParameterError(
                "The number of workers is that of the scheduler: give one of the two only."
            )
