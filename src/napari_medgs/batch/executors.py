"""Where fits run: processes on this machine, a Dask scheduler, or an executor of the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Protocol

from napari_medgs import __version__
from napari_medgs._optional import require
from napari_medgs.batch.params import BatchParams
from napari_medgs.batch.plan import make_plan, visible_gpus
from napari_medgs.batch.task import FitTask, fit_case, start_worker
from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.cases import Case

CONNECT_SECONDS = 20
WAIT_SECONDS = 120


@contextmanager
def unheard_interrupts() -> Iterator[None]:
    """Let processes that are started in the block not hear a terminal's Ctrl-C, from the first.

    A terminal sends it to all processes of a command. Those that are still importing, and have no
    handler yet, would print a traceback each. A signal that comes meanwhile is not lost here.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its own start would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers(Protocol):
    """An executor with what :func:`~napari_medgs.batch.fit_many` must know about it."""

    threads: int
    """CPU threads of one fit."""

    def count(self) -> int:
        """Return how many fits run at a time."""

    def submit(self, task: FitTask) -> Future[dict[str, Any]]:
        """Start a fit when a worker is free."""

    def cancel(self) -> None:
        """Ask the running fits to stop."""

    def restart(self) -> None:
        """Start anew after a worker process died."""


class LocalProcesses:
    """Processes on this machine, one fit at a time each.

    Parameters
    ----------
    processes, threads : int
        Number of processes, and CPU threads per fit.
    gpus : int
        CUDA devices to distribute among the processes.
    """

    def __init__(self, processes: int, threads: int, gpus: int = 0) -> None:
        self.processes, self.threads, self.gpus = processes, threads, gpus
        # Not forked: threads and CUDA contexts of this process do not survive that.
        self._context = multiprocessing.get_context("spawn")
        self._canceled = self._context.Event()
        self._executor: ProcessPoolExecutor | None = None

    def count(self) -> int:
        """Return the number of processes."""
        return self.processes

    def submit(self, task: FitTask) -> Future[dict[str, Any]]:
        """Start a fit when a process is free."""
        if self._executor is None:
            numbers = self._context.Queue()
            for k in range(self.processes):
                numbers.put(k % self.gpus if self.gpus > 1 else -1)
            self._executor = ProcessPoolExecutor(
                self.processes, self._context, start_worker, (self._canceled, numbers, self.gpus)
            )
        with unheard_interrupts():
            return self._executor.submit(fit_case, task)

    def cancel(self) -> None:
        """Ask the running fits to stop."""
        self._canceled.set()

    def restart(self) -> None:
        """Give up the processes that are left; the next fit starts new ones."""
        self.close()

    def close(self) -> None:
        """End the processes, once their fits are through."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


class DaskWorkers:
    """Workers of a Dask scheduler.

    Parameters
    ----------
    client : distributed.Client
    threads : int
        CPU threads per fit.
    """

    def __init__(self, client: Any, threads: int) -> None:
        from distributed import Event

        self.threads = threads
        self._client = client
        self._executor = client.get_executor(pure=False)
        self._name = f"medgs-cancel-{uuid.uuid4().hex}"
        self._canceled = Event(self._name, client=client)

    def count(self) -> int:
        """Return the threads of all workers, which may come and go."""
        return max(1, sum(self._client.nthreads().values()))

    def submit(self, task: FitTask) -> Future[dict[str, Any]]:
        """Start a fit when a worker is free."""
        future: Future[dict[str, Any]] = self._executor.submit(fit_case, task, self._name)
        return future

    def cancel(self) -> None:
        """Ask the running fits to stop."""
        self._canceled.set()

    def restart(self) -> None:
        """Do nothing: the scheduler replaces workers itself."""


class ExecutorWorkers:
    """An executor of the caller; its running fits cannot be stopped, only those that wait.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    workers : int
        Fits to submit at a time.
    threads : int
        CPU threads per fit.
    """

    def __init__(self, executor: Executor, workers: int, threads: int) -> None:
        self._executor, self._workers, self.threads = executor, workers, threads

    def count(self) -> int:
        """Return the fits at a time."""
        return self._workers

    def submit(self, task: FitTask) -> Future[dict[str, Any]]:
        """Start a fit when the executor has a worker free."""
        return self._executor.submit(fit_case, task)

    def cancel(self) -> None:
        """Do nothing: there is no channel to the executor's workers."""

    def restart(self) -> None:
        """Refuse: the executor is the caller's.

        Raises
        ------
        BackendError
            Always.
        """
        raise BackendError("A worker of the executor died; start it again.")


@contextmanager
def open_workers(
    cases: Sequence[Case], params: FitParams, batch: BatchParams, executor: Any = None
) -> Iterator[Workers]:
    """Yield the workers for a run: the caller's, a scheduler's, or processes sized to it.

    Parameters
    ----------
    cases : sequence of Case
        What is to be fitted.
    params : FitParams
    batch : BatchParams
    executor : concurrent.futures.Executor or distributed.Client, optional

    Raises
    ------
    BackendError, ParameterError, MissingPackageError
        When a scheduler is wanted and cannot be had.
    """
    threads = params.threads or 1
    if executor is not None and hasattr(executor, "get_executor"):
        yield DaskWorkers(executor, threads)
    elif executor is not None:
        yield ExecutorWorkers(executor, batch.workers or os.cpu_count() or 1, threads)
    elif batch.scheduler is not None:
        with dask_client(batch.scheduler) as client:
            yield DaskWorkers(client, threads)
    else:
        gpus = visible_gpus() if params.backend in ("auto", "cuda", "gsplat") else 0
        plan = make_plan(cases, params, workers=batch.workers, gpus=gpus)
        local = LocalProcesses(plan.workers, plan.threads, gpus)
        try:
            yield local
        finally:
            local.close()


@contextmanager
def dask_client(address: str) -> Iterator[Any]:
    """Yield the client of a Dask scheduler that is running somewhere.

    Parameters
    ----------
    address : str
        Such as ``tcp://host:8786``.

    Raises
    ------
    BackendError
        When nobody answers there, it has no workers, or they have another version of this
        package.
    ParameterError
        When the address is malformed.
    MissingPackageError
        When ``distributed`` is not installed.
    """
    require("distributed", feature="fit-many --scheduler")
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
    """Refuse workers with another version of this package.

    Parameters
    ----------
    found : dict of str to str
        Version by worker; "" where the package is missing.

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
