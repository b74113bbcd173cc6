"""Who does the work: a Dask cluster on this machine, sized to it, or a scheduler elsewhere."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs import __version__
from napari_medgs.batch.cases import Case
from napari_medgs.errors import BackendError, MedGSError, ParameterError
from napari_medgs.fitting.params import FitParams

WORKER_BYTES = 400 * 2**20  # a process with numba and the readers, before any image
MEMORY_SHARE = 0.8
ASSUMED_CLASSES = 8
CONNECT_SECONDS = 20
WAIT_SECONDS = 120


@dataclass(frozen=True)
class Plan:
    """How a local cluster is laid out.

    Attributes
    ----------
    workers : int
        Processes, each with one fit at a time.
    threads : int
        CPU threads of a fit.
    memory : int
        Bytes a process may use.
    """

    workers: int
    threads: int
    memory: int


def make_plan(
    cases: Sequence[Case],
    params: FitParams,
    *,
    workers: int | None = None,
    cpus: int | None = None,
    free: int | None = None,
    gpus: int | None = None,
) -> Plan:
    """Lay out a local cluster: one process a CPU, fewer where memory or cases do not suffice.

    Whole images in parallel waste nothing; threads within a fit do, so they get only what is
    left. On GPUs, one process each.

    Parameters
    ----------
    cases : sequence of Case
    params : FitParams
    workers : int, optional
        What the user wants.
    cpus, free, gpus : int, optional
        CPUs, bytes of free memory and CUDA devices; of this machine by default.
    """
    from napari_medgs._util.threads import default_threads

    cpus = default_threads() if cpus is None else cpus
    free = free_memory() if free is None else free
    if gpus is None:
        gpus = visible_gpus() if params.backend in ("auto", "cuda", "gsplat") else 0
    if workers is None:
        each = WORKER_BYTES + max((peak_bytes(case, params) for case in cases), default=0)
        workers = gpus or max(1, cpus // (params.threads or 1))
        workers = max(1, min(workers, len(cases), int(MEMORY_SHARE * free / each)))
    threads = params.threads or max(1, cpus // workers)
    return Plan(workers, threads, int(0.95 * free / workers))


def peak_bytes(case: Case, params: FitParams) -> int:
    """Return about what the fit of a case needs, judged by headers and file sizes only."""
    from napari_medgs.fitting.memory import estimate_bytes
    from napari_medgs.fitting.through_plane import MOST_VOXELS

    shape, images = _shape(case)
    needed = estimate_bytes(
        shape, images, ASSUMED_CLASSES if case.mask else 0, params.gaussians or 150_000
    )
    voxels = int(np.prod(shape))
    finer = params.interpolate is not False and (params.interpolate or voxels <= MOST_VOXELS)
    return needed * (2 if finer and shape[0] > 2 else 1)


def _shape(case: Case) -> tuple[tuple[int, int, int], int]:
    """Return (Z, Y, X) and channels of a case; guessed where only reading it would tell."""
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
    # Compressed frames and slices hold about a voxel a byte, others fewer.
    voxels = sum(f.stat().st_size for f in files if f.is_file())
    return (max(1, len(files)), 1, max(1, voxels // max(1, len(files)))), len(case.images)


def free_memory() -> int:
    """Return the bytes that are free for this process, limits of its container included."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return int(min(psutil.virtual_memory().available, MEMORY_LIMIT))


def visible_gpus() -> int:
    """Return the number of CUDA devices that fits can use."""
    from napari_medgs.rendering import backends

    works, _ = backends().get("cuda", (False, ""))
    if not works:
        return 0
    import torch

    return int(torch.cuda.device_count())


@contextmanager
def local_client(plan: Plan, gpus: int = 0) -> Iterator[Any]:
    """Yield the client of a cluster of processes on this machine.

    Parameters
    ----------
    plan : Plan
    gpus : int
        CUDA devices to share out among the workers.

    Raises
    ------
    BackendError
        When it does not start.
    """
    import dask
    from distributed import Client, LocalCluster

    quiet = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.worker.memory.terminate": 0.98,
        "distributed.admin.large-graph-warning-threshold": "1GB",
        "distributed.comm.timeouts.connect": "60s",
    }
    with dask.config.set(quiet):
        try:
            cluster = LocalCluster(
                n_workers=plan.workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=plan.memory,
                dashboard_address=None,
                silence_logs="CRITICAL",
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise BackendError(f"The local Dask cluster did not start ({error}).") from error
        with cluster, Client(cluster) as client:
            client.register_plugin(_shield())
            if gpus > 1:
                client.run(_take_gpu, gpus=gpus)
            yield client


def _take_gpu(gpus: int, dask_worker: Any = None) -> None:
    """Let a worker of a local cluster see one GPU only, before it uses any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(k) for k in range(gpus)]
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(dask_worker.name) % len(devices)]


@contextmanager
def remote_client(address: str) -> Iterator[Any]:
    """Yield the client of a scheduler that is running somewhere.

    Raises
    ------
    BackendError
        When nobody answers there, it has no workers, or they have another version of this
        package.
    ParameterError
        When the address makes no sense.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except ValueError as error:
        raise ParameterError(
            f"'{address}' is no address of a Dask scheduler, such as tcp://host:8786 ({error})."
        ) from error
    except (OSError, TimeoutError) as error:
        raise BackendError(
            f"No Dask scheduler answers at {address}; is it running, and reachable from here?"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as error:
            raise BackendError(f"The scheduler at {address} has no workers yet.") from error
        check_versions(client.run(_version))
        yield client


def _version() -> str:
    try:
        from napari_medgs import __version__ as found
    except ImportError:
        return ""
    return found


def check_versions(found: dict[str, str]) -> None:
    """Refuse workers that would fit otherwise, or not at all.

    Raises
    ------
    BackendError
        Naming one of them.
    """
    for worker, version in found.items():
        if version != __version__:
            has = f"napari-medgs {version}" if version else "no napari-medgs"
            raise BackendError(
                f"The worker {worker} has {has}; install {__version__} on all workers."
            )


def _shield() -> Any:
    """Return a Dask plugin that keeps Ctrl-C from a worker: we tell it when to stop.

    A terminal sends the signal to all processes of a command. Workers that are started again get
    the plugin, too.
    """
    from distributed import WorkerPlugin

    class Shield(WorkerPlugin):  # pickled by value: it needs no import of its own
        name = "medgs-shield"

        def setup(self, worker: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Shield()
