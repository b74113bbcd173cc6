"""The preparation of an image in the background: its field, its parts, a model's mask."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressEvent
from napari_medgs._util.threads import limit_threads
from napari_medgs.errors import Cancelled, MedGSError, MemoryEstimateError

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume

log = logging.getLogger("napari_medgs.server")

COARSE_VOXELS = 4_000_000  # larger images get a coarse field first
COARSE_ITERATIONS = 8


class BusyError(MedGSError):
    """The image is not ready yet."""


@dataclass
class Stage:
    """How far the preparation of an image is.

    Attributes
    ----------
    name : str
        "waiting", "coarse", "fine", "model", "ready" or "failed".
    detail : str
        What is being done.
    done, total : int
        Steps of it.
    """

    name: str = "waiting"
    detail: str = ""
    done: int = 0
    total: int = 0


class Model(Protocol):
    """What segments images before any prompt, such as a trained segmenter."""

    def segment(self, volume: Volume, *, should_stop: Callable[[], bool]) -> Any:
        """Return an object with ``labels`` (Z, Y, X) and ``names``, a dict of int to str."""


_model_lock = threading.Lock()  # one image at a time: networks take much memory


class Preparation:
    """Fits the field of an image and makes its tree of parts, in a thread.

    A large image gets a coarse field first, so that prompts need not wait for the better one.

    Parameters
    ----------
    volume : Volume
        Prepared.
    threads : int, optional
        CPU threads; all by default.
    model : Model, optional
        Asked once the image is prepared.

    Attributes
    ----------
    stage : Stage
    hints : ndarray of int, optional
        The model's mask, once it is there.
    names : dict of int to str
        Of its classes.
    refusal : str
        Why the model does not segment this image; empty where it does.
    """

    def __init__(self, volume: Volume, threads: int | None, model: Model | None = None) -> None:
        self._volume, self._threads, self._model = volume, threads, model
        self.hints: NDArray[Any] | None = None
        self.names: dict[int, str] = {}
        self.refusal = ""
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._ready: tuple[GaussianField, Any] | None = None
        self._error: MedGSError | None = None
        self.stage = Stage()
        self.finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="medgs-prepare", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the work; it ends soon."""
        self._stop.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(seconds)

    def _run(self) -> None:
        started = time.perf_counter()
        try:
            with limit_threads(self._threads):
                if self._volume.data[0].size > COARSE_VOXELS:
                    self._make("coarse", COARSE_ITERATIONS)
                self._make("fine", None)
                self._ask_model()
            refusal = f"The model does not segment this image: {self.refusal}"
            self.stage = Stage("ready", refusal if self.refusal else "")
            log.info("image prepared in %.1f s", time.perf_counter() - started)
        except Cancelled:
            self._fail(MedGSError("The image was replaced while it was prepared."))
        except MedGSError as error:
            self._fail(error)
        except MemoryError:
            self._fail(MemoryEstimateError("The server has too little memory for this image."))
        except Exception:
            log.exception("preparing an image failed")
            self._fail(MedGSError("The image could not be prepared; the server's log says why."))
        finally:
            self.finished.set()

    def _ask_model(self) -> None:
        if self._model is None:
            return
        self.stage = Stage("model")
        try:
            with _model_lock:
                found = self._model.segment(self._volume, should_stop=self._stop.is_set)
        except Cancelled:
            raise
        except MedGSError as error:  # another kind of image than the model's
            log.info("the model does not segment this image: %s", error)
            self.refusal = str(error)
            return
        self.names = dict(found.names)
        self.hints = found.labels

    def _fail(self, error: MedGSError) -> None:
        with self._changed:
            self._error = error
            self.stage = Stage("failed", str(error))
            self._changed.notify_all()

    def _make(self, name: str, iterations: int | None) -> None:
        from napari_medgs.hierarchy import PartParams, part_tree
        from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

        def progress(event: ProgressEvent) -> None:
            self.stage = Stage(name, event.stage, event.done, event.total)

        params = replace(FIT_PARAMS, threads=self._threads)
        if iterations is not None:
            params = replace(params, iterations=iterations)
        stop = self._stop.is_set
        field = fit_for_segmentation(self._volume, params, progress=progress, should_stop=stop)
        tree = part_tree(
            self._volume,
            field=field,
            params=PartParams(threads=self._threads),
            progress=progress,
            should_stop=stop,
        )
        with self._changed:
            self._ready = field, tree
            self._changed.notify_all()

    def wait(self, seconds: float) -> tuple[GaussianField, Any]:
        """Return the best field that there is, with its tree; wait for the first one.

        Parameters
        ----------
        seconds : float

        Returns
        -------
        field, tree

        Raises
        ------
        MedGSError
            When the image cannot be used, or not soon enough.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error, seconds)
            if self._ready is not None:
                return self._ready
            if self._error is not None:
                raise self._error
        raise BusyError("The image is still being prepared; try again in a moment.")
