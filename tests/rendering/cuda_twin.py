"""The CUDA kernels' own source, built with g++ and run on the CPU by an emulation of blocks."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from napari_medgs.rendering.cuda.driver import KERNELS, KernelOptions, kernel_source
from napari_medgs.rendering.cuda.engine import CudaEngine
from napari_medgs.rendering.engine import EngineSpec, StackTarget
from napari_medgs.rendering.parameters import (
    A1,
    A2,
    B1,
    B2,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
)

HERE = Path(__file__).parent

_ENTRY = """
static Task given;
extern "C" size_t task_size() { return sizeof(Task); }
extern "C" int emulate(const char *name, unsigned blocks, unsigned threads, const Task *task) {
    given = *task;
    %s
    return 2;
}
"""


def compiler() -> str | None:
    """Return g++, or None."""
    return shutil.which("g++")


needs_compiler = pytest.mark.skipif(compiler() is None, reason="g++ builds the emulation")


class TwinKernels:
    """Kernels with the interface of GpuKernels, run by the emulator."""

    def __init__(self, options: KernelOptions, folder: Path, double: bool) -> None:
        self.double = double
        self.launched: list[str] = []
        cases = "\n".join(
            f'if (!strcmp(name, "{kernel}"))'
            f" return emulator::run(blocks, threads, [] {{ {kernel}(given); }});"
            for kernel in KERNELS
        )
        source = f'#include "cuda_emulator.h"\n{kernel_source()}\n{_ENTRY % cases}'
        flags = [f"-D{k}={v}" for k, v in options.defines.items()]
        flags += ["-U_FORTIFY_SOURCE"]  # it forbids jumps to other stacks
        flags += ["-DMEDGS_DOUBLE"] if double else []
        key = hashlib.sha256(" ".join([source, *flags]).encode()).hexdigest()[:16]
        library = folder / f"{key}.so"
        if not library.exists():
            text = folder / f"{key}.cpp"
            text.write_text(source)
            command = ["g++", "-std=c++17", "-O0", "-fPIC", "-shared", "-w", f"-I{HERE}", *flags]
            made = subprocess.run(
                [*command, str(text), "-o", str(library)], capture_output=True, text=True
            )
            assert made.returncode == 0, made.stderr
        self._library = ctypes.CDLL(str(library))
        self._library.task_size.restype = ctypes.c_size_t

    def task_size(self) -> int:
        """Return the size of the C++ argument block."""
        return int(self._library.task_size())

    def launch(self, name: str, blocks: int, threads: int, task: ctypes.Structure) -> None:
        """Run a kernel to its end."""
        if blocks <= 0:
            return
        assert ctypes.sizeof(task) == self.task_size()
        self.launched.append(name)
        status = self._library.emulate(name.encode(), blocks, threads, ctypes.byref(task))
        assert status == 0, f"{name}: " + {1: "threads wait for ever", 2: "unknown"}[status]


def twin_engine(
    folder, shape, channels, background=None, *, double=True, degree=3, blend="normalized", **more
):
    """Make an engine whose kernels are emulated, in 64 bits unless said otherwise."""
    background = np.zeros(channels, np.float32) if background is None else background
    return CudaEngine(
        EngineSpec(shape, channels, background, degree=degree, cutoff=9.0, eps=1e-3, blend=blend),
        kernels=lambda options: TwinKernels(options, folder, double),
        **more,
    )


def random_table(rng, shape, count, channels, degree=3):
    """Gaussians in and around a stack, (count, 14 + channels) float32."""
    parameters = rng.normal(0, 0.3, (count, GEOMETRY + channels))
    for column, size in zip((0, 1, 2), shape[::-1], strict=True):
        parameters[:, column] = rng.uniform(-1, size, count)
    parameters[:, [LOG_R1, LOG_R2, LOG_RT]] -= 0.5
    parameters[:, [A2, A2 + 1, B2, B2 + 1]] *= 0.1
    parameters[:, A1 + degree : A1 + 3] = 0
    parameters[:, B1 + degree : B1 + 3] = 0
    parameters[:, LOG_W] -= 1
    return parameters.astype(np.float32)


def random_target(rng, shape, images, classes, l1=False):
    """Noise to fit, with slices left out and voxels unlabeled."""
    labels = np.zeros((0, 0, 0), np.uint8)
    if classes:
        labels = rng.integers(0, classes, shape).astype(np.uint8)
        labels[rng.random(shape) < 0.2] = 255
    image_weights = rng.uniform(0.5, 1.5, (images, shape[0])).astype(np.float32)
    seg_weights = rng.uniform(0.1, 1, shape[0]).astype(np.float32)
    if shape[0] > 5:
        image_weights[:, 3:5] = 0
        seg_weights[[2, 4]] = 0
    pictures = rng.random((images, *shape)).astype(np.float32)
    scored = np.arange(shape[0]) % 2 == 0
    return StackTarget(pictures, image_weights, labels, seg_weights, classes, l1, scored)
