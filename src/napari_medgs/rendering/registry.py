"""Rendering backends by name: which there are, whether they work here, and which to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_medgs.errors import BackendError, ParameterError


def _cpu_available() -> tuple[bool, str]:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return False, f"numba cannot be imported: {error}"
    return True, "numba kernels"


def _cpu_engine(blend: str) -> Callable[..., Any]:
    if blend == "alpha":
        from napari_medgs.rendering.cpu.alpha import AlphaCpuEngine

        return AlphaCpuEngine
    from napari_medgs.rendering.cpu.engine import CpuEngine

    return CpuEngine


def _cuda_available() -> tuple[bool, str]:
    from napari_medgs.rendering.cuda.driver import available

    return available()


def _cuda_engine(blend: str) -> Callable[..., Any]:
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


def _gsplat_engine(blend: str) -> Callable[..., Any]:
    from napari_medgs.rendering.gsplat import GsplatEngine

    del blend
    return GsplatEngine


def _torch_available() -> tuple[bool, str]:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return False, f"torch cannot be imported: {error}"
    return True, "plain torch, slow: every Gaussian at every voxel"


def _reference_engine(blend: str) -> Callable[..., Any]:
    del blend
    from napari_medgs.rendering.reference import ReferenceEngine

    return ReferenceEngine


@dataclass(frozen=True)
class _Backend:
    """How to test a backend and get its engine class for a blend."""

    available: Callable[[], tuple[bool, str]]
    load: Callable[[str], Callable[..., Any]]
    blends: tuple[str, ...]
    is_right: Callable[[], bool] = lambda: True
    """A self-check that "auto" wants passed before it takes the backend."""


_BACKENDS: dict[str, _Backend] = {
    "cuda": _Backend(_cuda_available, _cuda_engine, ("normalized", "sum"), _cuda_is_right),
    "cpu": _Backend(_cpu_available, _cpu_engine, ("normalized", "sum", "alpha")),
    "gsplat": _Backend(_gsplat_available, _gsplat_engine, ("alpha",)),
    "reference": _Backend(_torch_available, _reference_engine, ("normalized", "sum", "alpha")),
}
AUTO_ORDER = ("cuda", "cpu")


def backends() -> dict[str, tuple[bool, str]]:
    """Return, for every backend, whether it can be used here and a remark or the reason."""
    return {name: backend.available() for name, backend in _BACKENDS.items()}


def choose_engine(name: str, blend: str) -> tuple[str, Callable[..., Any]]:
    """Return a backend's name and engine class.

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
                return candidate, backend.load(blend)
        raise BackendError(f"No backend here can render the blend {blend!r}.")
    if name not in _BACKENDS:
        known = ", ".join(["auto", *_BACKENDS])
        raise ParameterError(f"Unknown backend {name!r}; choose one of {known}.")
    backend = _BACKENDS[name]
    works, reason = backend.available()
    if not works:
        raise BackendError(f"The backend {name!r} cannot be used: {reason}")
    if blend not in backend.blends:
        known = " and ".join(backend.blends)
        raise BackendError(f"The backend {name!r} renders {known}, not {blend!r}.")
    return name, backend.load(blend)
