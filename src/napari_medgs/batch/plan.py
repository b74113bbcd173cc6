"""How many processes and threads a batch uses on this machine, by CPUs, memory and GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_medgs._util.memory import free_bytes
from napari_medgs.errors import MedGSError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.cases import Case

PROCESS_BYTES = 400 * 2**20  # a process with numba and the readers, before any image
MEMORY_FRACTION = 0.8  # of the free memory that fits may use
ASSUMED_CLASSES = 8


@dataclass(frozen=True)
class Plan:
    """How fits are distributed over this machine.

    Attributes
    ----------
    workers : int
        Processes, each with one fit at a time.
    threads : int
        CPU threads per fit.
    """

    workers: int
    threads: int


def make_plan(
    cases: Sequence[Case],
    params: FitParams,
    *,
    workers: int | None = None,
    cpus: int | None = None,
    free: int | None = None,
    gpus: int | None = None,
) -> Plan:
    """Plan one process per CPU, fewer where memory or cases do not suffice.

    Several images in parallel scale better than the threads of one fit, which get only what is
    left. On GPUs, one process each.

    Parameters
    ----------
    cases : sequence of Case
    params : FitParams
    workers : int, optional
        The user's choice.
    cpus, free, gpus : int, optional
        CPUs, bytes of free memory and CUDA devices; by default those of this machine.

    Returns
    -------
    Plan
    """
    from napari_medgs._util.threads import default_threads

    cpus = default_threads() if cpus is None else cpus
    free = free_bytes() if free is None else free
    if gpus is None:
        gpus = visible_gpus() if params.backend in ("auto", "cuda", "gsplat") else 0
    if workers is None:
        each = PROCESS_BYTES + max((peak_bytes(case, params) for case in cases), default=0)
        workers = gpus or max(1, cpus // (params.threads or 1))
        workers = max(1, min(workers, len(cases), int(MEMORY_FRACTION * free / each)))
    return Plan(workers, params.threads or max(1, cpus // workers))


def peak_bytes(case: Case, params: FitParams) -> int:
    """Return about how much memory the fit of a case needs, from headers and file sizes only.

    Parameters
    ----------
    case : Case
    params : FitParams

    Returns
    -------
    int
        Bytes.
    """
    from napari_medgs.fitting.memory import estimate_bytes

    shape, images = _shape(case)
    needed = estimate_bytes(
        shape, images, ASSUMED_CLASSES if case.mask else 0, params.gaussians or 150_000
    )
    voxels = int(np.prod(shape))
    small = voxels <= params.advanced.through_plane.max_voxels
    finer = params.interpolate is not False and (params.interpolate or small)
    return needed * (2 if finer and shape[0] > 2 else 1)


def _shape(case: Case) -> tuple[tuple[int, int, int], int]:
    """Return (Z, Y, X) and channels of a case; estimated where only reading it would tell."""
    from napari_medgs.io.medmnist.reader import is_spec
    from napari_medgs.io.nifti.header import read_header
    from napari_medgs.io.nifti.reader import is_nifti

    first = case.images[0]
    if is_nifti(first):
        try:
            sizes = (*read_header(first).shape, 1, 1)
        except MedGSError:
            return (1, 1, 1), 1  # the fit will say what is wrong with it
        channels = sizes[3] if len(sizes) > 5 else 1
        return (int(sizes[2]), int(sizes[1]), int(sizes[0])), int(channels) * len(case.images)
    if is_spec(first):
        return (64, 64, 64), 1
    folder = Path(first)
    files = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    # Compressed frames and slices hold about one voxel per byte, others fewer.
    voxels = sum(f.stat().st_size for f in files if f.is_file())
    return (max(1, len(files)), 1, max(1, voxels // max(1, len(files)))), len(case.images)


def visible_gpus() -> int:
    """Return the number of CUDA devices that fits can use."""
    from napari_medgs.rendering import backends

    works, _ = backends().get("cuda", (False, ""))
    if not works:
        return 0
    try:
        import torch
    except ImportError:
        return 1
    return int(torch.cuda.device_count())
