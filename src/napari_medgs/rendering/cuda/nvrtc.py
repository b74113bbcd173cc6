"""CUDA C compiled at run time by NVRTC, which PyTorch's CUDA wheels bring along.

No toolkit, no host compiler and no driver is needed to compile; the binaries are kept on disk.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from napari_medgs.errors import BackendError, FileError

SYSTEM_NAMES = (
    ("nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64_112_0.dll")
    if sys.platform == "win32"
    else ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
)


def _is_nvrtc(path: Path) -> bool:
    name = path.name.lower()
    if "builtins" in name or "alt" in name:
        return False
    on_unix = name.startswith("libnvrtc") and ".so" in name
    return on_unix or (name.startswith("nvrtc64") and name.endswith(".dll"))


def _package_folder(name: str) -> Iterator[Path]:
    """Yield a package's folders without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place)


def nvrtc_candidates() -> list[str]:
    """Return paths and names under which NVRTC may be loaded, the likeliest first.

    Returns
    -------
    list of str
        Those in PyTorch's own wheels, in the folder that PyTorch itself bundles, in a toolkit
        named by ``CUDA_PATH`` or ``CUDA_HOME``, in the Python environment, and the names that
        the system's loader may know.
    """
    folders: list[Path] = []
    for root in _package_folder("nvidia"):
        for part in ("cu13", "cuda_nvrtc"):
            folders += [root / part / "lib", root / part / "bin", root / part / "bin" / "x86_64"]
    folders += [root / "lib" for root in _package_folder("torch")]
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if home := os.environ.get(variable):
            folders += [Path(home) / part for part in ("lib64", "lib", "bin", "bin/x64")]
    prefix = Path(sys.prefix)
    folders += [prefix / "lib", prefix / "Library" / "bin"]
    if sys.platform != "win32":
        folders.append(Path("/usr/local/cuda/lib64"))
    found: list[str] = []
    for folder in folders:
        with suppress(OSError):
            found += sorted((str(p) for p in folder.iterdir() if _is_nvrtc(p)), reverse=True)
    known = ctypes.util.find_library("nvrtc")
    return [*dict.fromkeys([*found, *([known] if known else []), *SYSTEM_NAMES])]


class Nvrtc:
    """The compiler library.

    Parameters
    ----------
    path : str
        File or name of the library.

    Raises
    ------
    OSError
        When it cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path).parent
        if sys.platform == "win32" and folder.is_absolute():
            os.add_dll_directory(str(folder))  # it loads its builtins from there
        self.path = path
        self._lib = ctypes.CDLL(path)
        self._lib.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _check(self, status: int, task: str) -> None:
        if status:
            reason = self._lib.nvrtcGetErrorString(status).decode()
            raise BackendError(f"NVRTC ({self.path}) failed to {task}: {reason}.")

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        status = self._lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self._check(status, "tell its version")
        return major.value, minor.value

    def architectures(self) -> list[int]:
        """Return the compute capabilities it can compile for, 75 for 7.5 and so on."""
        count = ctypes.c_int()
        self._check(self._lib.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "list devices")
        values = (ctypes.c_int * count.value)()
        self._check(self._lib.nvrtcGetSupportedArchs(values), "list devices")
        return sorted(values)

    def compile(self, source: str, options: Sequence[str], *, binary: bool) -> bytes:
        """Compile CUDA C.

        Parameters
        ----------
        source : str
        options : sequence of str
            NVRTC's options; the architecture is one of them.
        binary : bool
            Return machine code (cubin) instead of PTX.

        Raises
        ------
        BackendError
            With the compiler's log.
        """
        lib, program = self._lib, ctypes.c_void_p()
        status = lib.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"napari_medgs.cu", 0, None, None
        )
        self._check(status, "start")
        try:
            array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            if lib.nvrtcCompileProgram(program, len(options), array):
                log = self._text(program, "nvrtcGetProgramLog").decode(errors="replace")
                raise BackendError(f"NVRTC could not compile the kernels: {log.strip(chr(0))}")
            return self._text(program, "nvrtcGetCUBIN" if binary else "nvrtcGetPTX")
        finally:
            lib.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._lib, name + "Size")(program, ctypes.byref(size)), "answer")
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._lib, name)(program, text), "answer")
        return text.raw


@lru_cache(maxsize=1)
def find_nvrtc() -> Nvrtc | None:
    """Return the first NVRTC that loads, or None."""
    for path in nvrtc_candidates():
        try:
            nvrtc = Nvrtc(path)
            nvrtc.architectures()
        except (OSError, AttributeError, BackendError):
            continue
        return nvrtc
    return None


def cache_folder() -> Path:
    """Return the folder of compiled kernels, in the user's cache."""
    import pooch

    return Path(pooch.os_cache("napari-medgs")) / "kernels"


def compile_for(
    source: str,
    defines: dict[str, int],
    capability: int,
    *,
    nvrtc: Nvrtc | None = None,
    cache: Path | None = None,
) -> bytes:
    """Compile kernels for a device, or take them from the cache.

    Parameters
    ----------
    source : str
    defines : dict
        Macros.
    capability : int
        Compute capability of the device, 90 for 9.0.
    nvrtc : Nvrtc, optional
        The first one found by default.
    cache : Path, optional
        Folder of compiled kernels; the user's cache by default. One that cannot be written
        to costs the compilation (well under a second) at every start, nothing else.

    Returns
    -------
    bytes
        Machine code, or PTX where the device is newer than the compiler.

    Raises
    ------
    BackendError
        Without NVRTC, for a device that it no longer knows, or when compilation fails.
    """
    nvrtc = nvrtc or find_nvrtc()
    if nvrtc is None:
        raise BackendError(
            "NVRTC, CUDA's run-time compiler, was not found; it comes with PyTorch."
        )
    known = nvrtc.architectures()
    if capability < known[0]:
        raise BackendError(
            f"The installed CUDA compiler starts at compute capability {known[0] / 10}, this GPU "
            f"has {capability / 10}: install a PyTorch built for an older CUDA."
        )
    binary = capability in known
    target = capability if binary else max(k for k in known if k < capability)
    options = [
        f"--gpu-architecture={'sm' if binary else 'compute'}_{target}",
        "--std=c++17",
        "--use_fast_math",
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]
    key = hashlib.sha256("\0".join([source, str(nvrtc.version), *options]).encode()).hexdigest()
    folder = cache or cache_folder()
    path = folder / f"{key[:40]}.{'cubin' if binary else 'ptx'}"
    with suppress(OSError):
        return path.read_bytes()
    code = nvrtc.compile(source, options, binary=binary)
    from napari_medgs.io._atomic import atomic_path

    with suppress(OSError, FileError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, cache=True) as temporary:
            temporary.write_bytes(code)
    return code
