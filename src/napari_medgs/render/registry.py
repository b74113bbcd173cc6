"""Rendering backends by name: which there are, whether they work here, and which to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_medgs.errors import BackendError, ParameterError


def _cpu_available() -> tuple[bool, str]:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return False, f"numba cannot be imported: {error}"
    return True, "numba kernels"


def _cpu_engine() -> Callable[..., Any]:
    from napari_medgs.render.cpu import CpuEngine

    return CpuEngine


# name -> (availability, engine class, blends it knows)
_BACKENDS: dict[str, tuple[Callable[[], tuple[bool, str]], Callable[[], Callable[..., Any]], tuple[str, ...]]] = {
    "cpu": (_cpu_available, _cpu_engine, ("normalized", "sum")),
}
AUTO_ORDER = ("cpu",)


def backends() -> dict[str, tuple[bool, str]]:
    """Return, for every backend, whether it can be used here and a remark or the reason."""
    return {name: check() for name, (check, _, _) in _BACKENDS.items()}


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
            check, load, blends = _BACKENDS[candidate]
            if blend in blends and check()[0]:
                return candidate, load()
        raise BackendError(f"No backend here can render the blend {blend!r}.")
    if name not in _BACKENDS:
        known = ", ".join(["auto", *_BACKENDS])
        raise ParameterError(f"Unknown backend {name!r}; choose one of {known}.")
    check, load, blends = _BACKENDS[name]
    works, reason = check()
    if not works:
        raise BackendError(f"The backend {name!r} cannot be used: {reason}")
    if blend not in blends:
        raise BackendError(f"The backend {name!r} renders {' and '.join(blends)}, not {blend!r}.")
    return name, load()
