"""Rendering backends by name: which there are, whether they work here, and which to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from napari_medgs.data.field import GaussianField
from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.rendering.engine import (
    Engine,
    EngineFactory,
    EngineSpec,
    ScoreRenderer,
    ScoreRendererFactory,
)


def _cpu_available() -> tuple[bool, str]:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return False, f"numba cannot be imported: {error}"
    return True, "numba kernels"


def _cpu_engine(blend: str) -> EngineFactory:
    if blend == "alpha":
        from napari_medgs.rendering.cpu.alpha import AlphaCpuEngine

        return AlphaCpuEngine
    from napari_medgs.rendering.cpu.engine import CpuEngine

    return CpuEngine


def _cpu_scores() -> ScoreRendererFactory:
    from napari_medgs.rendering.cpu.scores import CpuScoreRenderer

    return CpuScoreRenderer


def _cuda_available() -> tuple[bool, str]:
    from napari_medgs.rendering.cuda.driver import available

    return available()


def _cuda_engine(blend: str) -> EngineFactory:
    from napari_medgs.rendering.cuda.engine import CudaEngine

    del blend
    return CudaEngine


def _cuda_is_right() -> bool:
    """Tell whether a small problem gives the reference's answer on this GPU (asked once)."""
    from napari_medgs.rendering.cuda.check import check_gpu

    return check_gpu()[0]


def _gsplat_available() -> tuple[bool, str]:
    from napari_medgs.rendering.gsplat import available

    return available()


def _gsplat_engine(blend: str) -> EngineFactory:
    from napari_medgs.rendering.gsplat import GsplatEngine

    del blend
    return GsplatEngine


def _torch_available() -> tuple[bool, str]:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return False, f"torch cannot be imported: {error}"
    return True, "plain torch, slow: every Gaussian at every voxel"


def _reference_engine(blend: str) -> EngineFactory:
    del blend
    from napari_medgs.rendering.reference import ReferenceEngine

    return ReferenceEngine


@dataclass(frozen=True)
class _Backend:
    """How to test a backend, and what it can do.

    Attributes
    ----------
    available : callable
        Tells whether it works here, and a remark or the reason.
    engine : callable
        Returns the engine class for a blend.
    blends : tuple of str
    is_right : callable
        A self-check that "auto" wants passed before it takes the backend.
    scores : callable, optional
        Returns its :class:`~napari_medgs.rendering.engine.ScoreRenderer`; None where it has none.
    """

    available: Callable[[], tuple[bool, str]]
    engine: Callable[[str], EngineFactory]
    blends: tuple[str, ...]
    is_right: Callable[[], bool] = lambda: True
    scores: Callable[[], ScoreRendererFactory] | None = None


_BACKENDS: dict[str, _Backend] = {
    "cuda": _Backend(_cuda_available, _cuda_engine, ("normalized", "sum"), _cuda_is_right),
    "cpu": _Backend(
        _cpu_available, _cpu_engine, ("normalized", "sum", "alpha"), scores=_cpu_scores
    ),
    "gsplat": _Backend(_gsplat_available, _gsplat_engine, ("alpha",)),
    "reference": _Backend(_torch_available, _reference_engine, ("normalized", "sum", "alpha")),
}
AUTO_ORDER = ("cuda", "cpu")


def backends() -> dict[str, tuple[bool, str]]:
    """Return the rendering backends and whether each can be used here.

    Returns
    -------
    dict of str to (bool, str)
        By name: whether it works here, and a remark or the reason why not.

    Examples
    --------
    >>> from napari_medgs.rendering import backends
    >>> backends()["cpu"]
    (True, 'numba kernels')
    """
    return {name: backend.available() for name, backend in _BACKENDS.items()}


def _known(name: str) -> _Backend:
    """Return a backend that was asked for by name."""
    if name not in _BACKENDS:
        known = ", ".join(["auto", *_BACKENDS])
        raise ParameterError(f"Unknown backend {name!r}; choose one of {known}.")
    backend = _BACKENDS[name]
    works, reason = backend.available()
    if not works:
        raise BackendError(f"The backend {name!r} cannot be used: {reason}.")
    return backend


def choose_engine(name: str, blend: str) -> tuple[str, EngineFactory]:
    """Return a backend's name and engine class.

    Parameters
    ----------
    name : str
        "auto" takes a GPU that works, else the CPU.
    blend : {"normalized", "sum", "alpha"}

    Returns
    -------
    name : str
        The backend chosen.
    engine : callable
        From an :class:`~napari_medgs.rendering.engine.EngineSpec` to an engine.

    Raises
    ------
    ParameterError
        For an unknown name.
    BackendError
        When it does not work here, or does not know the blend.
    """
    if name == "auto":
        for candidate in AUTO_ORDER:
            backend = _BACKENDS[candidate]
            if blend in backend.blends and backend.available()[0] and backend.is_right():
                return candidate, backend.engine(blend)
        raise BackendError(f"No backend here can render the blend {blend!r}.")
    backend = _known(name)
    if blend not in backend.blends:
        known = " and ".join(backend.blends)
        raise BackendError(f"The backend {name!r} renders {known}, not {blend!r}.")
    return name, backend.engine(blend)


def make_engine(spec: EngineSpec, backend: str = "auto") -> Engine:
    """Make an engine.

    Parameters
    ----------
    spec : EngineSpec
    backend : str
        "auto" or a name from :func:`backends`.

    Returns
    -------
    Engine

    Raises
    ------
    ParameterError, BackendError
        As :func:`choose_engine`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.rendering import EngineSpec, make_engine
    >>> engine = make_engine(EngineSpec((2, 4, 4), channels=1), backend="cpu")
    >>> engine.render(np.zeros((1, 15), np.float32)).shape
    (1, 2, 4, 4)
    """
    return choose_engine(backend, spec.blend)[1](spec)


def score_renderer(
    field: GaussianField, backend: str = "auto", threads: int | None = None
) -> ScoreRenderer:
    """Make what renders class scores of a field's Gaussians.

    Parameters
    ----------
    field : GaussianField
    backend : str
        "auto" or a name from :func:`backends`. Only "cpu" renders scores so far; the CPU is used
        where another backend is named.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    ScoreRenderer

    Raises
    ------
    ParameterError
        For an unknown backend.
    BackendError
        When the backend does not work here.
    """
    make = _BACKENDS["cpu"].scores if backend == "auto" else _known(backend).scores
    make = make or _BACKENDS["cpu"].scores
    assert make is not None
    return make()(field, threads)
