"""A hand-vectorised C++ step beside ours: how far the numba kernels are from what is possible.

The source is ``benchmarks/cpp/bound.cpp`` of the source tree: the same algorithm with vector
intrinsics and its own threads, for the normalized blend of one channel.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.errors import BackendError
from napari_medgs.rendering.engine import StackTarget
from suite.registry import source_folder

FLAGS = (
    "-O3",
    "-march=native",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-pthread",
)
WIDE = np.ctypeslib.ndpointer(dtype=np.float32, flags="C_CONTIGUOUS")
DOUBLES = np.ctypeslib.ndpointer(dtype=np.float64, flags="C_CONTIGUOUS")


def why_not() -> str:
    """Return why the bound cannot be compiled here; empty where it can."""
    root = source_folder()
    if root is None or not (root / "benchmarks" / "cpp" / "bound.cpp").is_file():
        return "benchmarks/cpp/bound.cpp is only in the source tree"
    if shutil.which("g++") is None:
        return "there is no g++"
    import llvmlite.binding as llvm

    if not llvm.get_host_cpu_features().get("avx2"):
        return "the processor has no AVX2"
    return ""


def lane_counts() -> tuple[int, ...]:
    """Return the vector widths that this processor has."""
    import llvmlite.binding as llvm

    return (8, 16) if llvm.get_host_cpu_features().get("avx512f") else (8,)


class CppBound:
    """The compiled step; a context manager that removes the library at its end.

    Parameters
    ----------
    lanes : int
        8 (AVX2) or 16 (AVX-512).

    Raises
    ------
    BackendError
        When it cannot be compiled.
    """

    def __init__(self, lanes: int) -> None:
        reason = why_not()
        root = source_folder()
        if reason or root is None:
            raise BackendError(f"The C++ bound cannot be compiled: {reason}.")
        self._folder = tempfile.TemporaryDirectory(prefix="medgs-bound-")
        library = Path(self._folder.name) / f"bound{lanes}.so"
        source = root / "benchmarks" / "cpp" / "bound.cpp"
        command = ["g++", *FLAGS, f"-DLANES={lanes}", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BackendError(f"g++ refused the C++ bound: {done.stderr.strip()[:300]}")
        loaded = ctypes.CDLL(str(library))
        i, f = ctypes.c_int, ctypes.c_float
        loaded.step.argtypes = [
            *(WIDE, ctypes.c_int64, i, i, i, i, f, f, f, WIDE, WIDE, WIDE, i, DOUBLES)
        ]
        loaded.step.restype = ctypes.c_double
        self.lanes = int(loaded.lane_count())
        self._step = loaded.step

    def close(self) -> None:
        """Remove the library's file."""
        self._folder.cleanup()

    def __enter__(self) -> CppBound:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def step(
        self, theta: Floats, target: StackTarget, engine: Any
    ) -> tuple[float, Floats, NDArray[np.float64]]:
        """Take one forward and backward pass.

        Parameters
        ----------
        theta : (N, 15) ndarray
        target : StackTarget
            One channel, no classes, squared errors.
        engine : CpuEngine
            Whose settings to use.

        Returns
        -------
        squares : float
            Sum of squared errors.
        gradient : (N, 15) ndarray
        seconds : (3,) ndarray
            Preparing and listing; splatting and residual; gathering.
        """
        gradient = np.empty_like(theta)
        seconds = np.zeros(3)
        depth, height, width = engine.shape
        squares = self._step(
            theta,
            len(theta),
            depth,
            height,
            width,
            engine.degree,
            float(engine.log2_cutoff) / 0.7213475204444817,
            float(engine.eps),
            float(engine.background[0]),
            target.images[0],
            target.image_weights[0],
            gradient,
            engine.threads,
            seconds,
        )
        return float(squares), gradient, seconds
