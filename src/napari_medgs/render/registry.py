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
        from napari_medgs.render.cpu_alpha import AlphaCpuEngine

        return AlphaCpuEngine
    from napari_medgs.render.cpu import CpuEngine

    return CpuEngine


def _torch_available() -> tuple[bool, str]:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return False, f"torch cannot be imported: {error}"
    return True, "plain torch, slow: every Gaussian at every voxel"


def _reference_engine(blend: str) -> Callable[..., Any]:
    del blend
    from napari_medgs.render.reference import ReferenceEngine

    return ReferenceEngine


@dataclass(frozen=True)
class _Backend:
    """How to test a backend and get its engine class for a blend."""

    available: Callable[[], tuple[bool, str]]
    load: Callable[[str], Callable[..., Any]]
    blends: tuple[str, ...]


_BACKENDS: dict[str, _Backend] = {
    "cpu": _Backend(_cpu_available, _cpu_engine, ("normalized", "sum", "alpha")),
    "reference": _Backend(_torch_available, _reference_engine, ("normalized", "sum", "alpha")),
}
AUTO_ORDER = ("cpu",)


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
            if blend in backend.blends and backend.available()[0]:
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
