"""Kernels on a GPU: the argument block, the driver's loader and launcher, through ctypes."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Protocol

from napari_medgs.errors import BackendError
from napari_medgs.rendering.cuda.nvrtc import compile_for, find_nvrtc

SOURCES = ("common.cu", "lists.cu", "forward.cu", "backward.cu")
KERNELS = (
    "prepare", "count_tiles", "fill_tiles", "sort_tiles", "splat", "blend", "blend_backward",
    "residual", "gather", "gather_large", "adam",
)  # fmt: skip
MOST_PLANES_AT_ONCE, PLANES_AT_ONCE = 12, 8
# Gaussians in more tiles than this get a block of so many warps rather than a warp; warps of a
# block that has a Gaussian each; reads ahead in a row. Timed on an H200, which
# hardly tells 64 from 128 tiles; one read ahead takes 1.2 times as long as two.
LARGE_TILES, LARGE_WARPS, GATHER_WARPS, AHEAD = 64, 8, 1, 3
# Warps resident on a processor, by planes at a time: as many as gather fastest there.
RESIDENT_WARPS = {2: 32, 6: 20, MOST_PLANES_AT_ONCE: 16}
ERRORS = 3  # numbers a loss comes with

_POINTERS = (
    "parameters", "prepared", "gradient", "touched", "slices", "lookup", "counts", "offsets",
    "members", "large", "flags", "sums", "out", "grad_out", "background", "images",
    "image_weights", "labels", "seg_weights", "counted", "partial", "first", "second", "steps",
    "quiet", "lower", "upper", "totals",
)  # fmt: skip
_INTS = (
    "count", "degree", "depth", "height", "width", "pitch", "wanted", "origin", "positions",
    "tiles_x", "tiles_y", "tiles_z", "image_count", "classes", "normalized", "l1", "add",
    "partial_origin",
)  # fmt: skip
_REALS = ("budget", "eps", "scale", "keep1", "keep2")


@lru_cache(maxsize=2)
def task_type(double: bool = False) -> type[ctypes.Structure]:
    """Return the kernels' argument block, ``struct Task`` in kernels/common.cu.

    Parameters
    ----------
    double : bool
        For kernels built with 64-bit numbers (tests do).
    """
    real = ctypes.c_double if double else ctypes.c_float
    fields: list[Any] = [(name, ctypes.c_void_p) for name in _POINTERS]
    fields += [("capacity", ctypes.c_longlong), ("stop", ctypes.c_double * ERRORS)]
    fields += [(name, ctypes.c_int) for name in _INTS]
    fields += [(name, real) for name in _REALS]
    return type("Task", (ctypes.Structure,), {"_fields_": fields})


@dataclass(frozen=True)
class KernelOptions:
    """What kernels are compiled for.

    Attributes
    ----------
    channels : int
    tile : (int, int, int)
        Columns, rows and slices of a tile.
    """

    channels: int
    tile: tuple[int, int, int]

    @property
    def defines(self) -> dict[str, int]:
        """Macros of the source."""
        planes = self.channels + 1
        chunk = planes if planes <= MOST_PLANES_AT_ONCE else PLANES_AT_ONCE
        x, y, z = self.tile
        return {
            "CHANNELS": self.channels, "CHUNK": chunk, "TILE_X": x, "TILE_Y": y, "TILE_Z": z,
            "LARGE_TILES": LARGE_TILES, "LARGE_WARPS": LARGE_WARPS, "GATHER_WARPS": GATHER_WARPS,
            "RESIDENT_WARPS": next(n for most, n in RESIDENT_WARPS.items() if chunk <= most),
            "AHEAD": AHEAD,
        }  # fmt: skip


class Kernels(Protocol):
    """Something that runs the kernels: a GPU, or an emulation in tests."""

    double: bool

    def launch(self, name: str, blocks: int, threads: int, task: ctypes.Structure) -> None:
        """Start a kernel in a line of blocks."""


def kernel_source() -> str:
    """Return the CUDA C of all kernels."""
    folder = files("napari_medgs.rendering.cuda") / "kernels"
    return "\n".join((folder / name).read_text("utf-8") for name in SOURCES)


class Driver:
    """The part of CUDA's driver that modules and launches need.

    Raises
    ------
    BackendError
        Without a driver.
    """

    def __init__(self) -> None:
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            self._lib = ctypes.CDLL(name)
        except OSError as error:
            raise BackendError(f"The NVIDIA driver's {name} cannot be loaded: {error}.") from error
        self._call("cuInit", 0)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(status, ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {status}"
            raise BackendError(f"CUDA's {name} failed: {reason}.")

    @lru_cache(maxsize=8)  # noqa: B019 - the one driver lives as long as the process
    def context(self, index: int) -> ctypes.c_void_p:
        """Return a device's primary context, which is PyTorch's as well."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        return context

    def enter(self, index: int) -> None:
        """Make a device's primary context current in this thread."""
        self._call("cuCtxSetCurrent", self.context(index))

    def load(self, code: bytes) -> dict[str, ctypes.c_void_p]:
        """Load machine code or PTX; return its kernels by name."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), code)
        functions = {}
        for name in KERNELS:
            functions[name] = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(functions[name]), module, name.encode())
        return functions

    def launch(
        self,
        function: ctypes.c_void_p,
        blocks: int,
        threads: int,
        stream: int,
        task: ctypes.Structure,
    ) -> None:
        """Start a kernel; its arguments are copied before this returns."""
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(task))
        self._call(
            "cuLaunchKernel",
            function,
            *(ctypes.c_uint(n) for n in (blocks, 1, 1, threads, 1, 1, 0)),
            ctypes.c_void_p(stream),
            arguments,
            None,
        )


@lru_cache(maxsize=1)
def driver() -> Driver:
    """Return the driver, loaded once."""
    return Driver()


def device_count() -> int:
    """Return the number of CUDA devices, asked of the driver's library alone.

    PyTorch is not imported, which takes more than a second: without a driver there is no GPU.

    Raises
    ------
    BackendError
        Without a driver, or when the driver finds no device.
    """
    count = ctypes.c_int()
    driver()._call("cuDeviceGetCount", ctypes.byref(count))
    return count.value


def available() -> tuple[bool, str]:
    """Return whether the CUDA engine can be used here, and the device's name or the reason."""
    try:
        if device_count() < 1:
            return False, "the NVIDIA driver finds no GPU"
        import torch

        if torch.version.cuda is None:
            return False, "this PyTorch was built without CUDA"
        if not torch.cuda.is_available():
            return False, "PyTorch finds no NVIDIA GPU"
        nvrtc = find_nvrtc()
        if nvrtc is None:
            return False, "NVRTC, CUDA's run-time compiler, was not found"
        major, minor = torch.cuda.get_device_capability()
        if 10 * major + minor < nvrtc.architectures()[0]:
            return False, f"NVRTC no longer knows compute capability {major}.{minor}"
        version = ".".join(str(n) for n in nvrtc.version)
        return True, f"{torch.cuda.get_device_name()}, kernels by NVRTC {version}"
    except BackendError as error:
        return False, str(error).rstrip(".")
    except Exception as error:  # whatever is broken there: the other backends still work
        return False, f"{type(error).__name__}: {error}"


class GpuKernels:
    """Kernels compiled for and loaded on one GPU; they run on PyTorch's current stream.

    Parameters
    ----------
    options : KernelOptions
    index : int
        The device's number in PyTorch.
    """

    double = False

    def __init__(self, options: KernelOptions, index: int) -> None:
        import torch

        major, minor = torch.cuda.get_device_capability(index)
        code = compile_for(kernel_source(), options.defines, 10 * major + minor)
        self.index, self._driver, self._torch = index, driver(), torch
        self._driver.enter(index)
        self._functions = self._driver.load(code)

    def launch(self, name: str, blocks: int, threads: int, task: ctypes.Structure) -> None:
        """Start a kernel in a line of blocks."""
        if blocks <= 0:
            return
        self._driver.enter(self.index)
        stream = self._torch.cuda.current_stream(self.index).cuda_stream
        self._driver.launch(self._functions[name], blocks, threads, stream, task)


@lru_cache(maxsize=32)
def gpu_kernels(options: KernelOptions, index: int) -> GpuKernels:
    """Return the kernels for a channel count and tile, compiled and loaded once."""
    return GpuKernels(options, index)
