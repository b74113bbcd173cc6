"""The CUDA kernels compile for real devices; finding and caching the compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from napari_medgs.errors import BackendError
from napari_medgs.rendering.cuda import nvrtc
from napari_medgs.rendering.cuda.driver import KERNELS, KernelOptions, kernel_source

OPTIONS = [
    KernelOptions(1, (8, 8, 4)),
    KernelOptions(5, (16, 8, 2)),
    KernelOptions(20, (16, 16, 1)),
]
compiler = nvrtc.find_nvrtc()
needs_nvrtc = pytest.mark.skipif(
    compiler is None, reason="no NVRTC here (pip install nvidia-cuda-nvrtc brings one)"
)


@needs_nvrtc
@pytest.mark.parametrize(  # all for the oldest devices, which have least of everything
    ("options", "capability"),
    [*((options, 75) for options in OPTIONS), (OPTIONS[2], 80), (OPTIONS[0], 90)],
    ids=lambda x: f"{x.channels} channels" if isinstance(x, KernelOptions) else x,
)
def test_kernels_compile_with_nvrtc(options, capability, tmp_path):
    code = nvrtc.compile_for(kernel_source(), options.defines, capability, cache=tmp_path)
    assert code[:4] == b"\x7fELF"
    for name in KERNELS:
        assert name.encode() in code
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == code


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS[:2], ids=lambda o: f"{o.channels} channels")
def test_kernels_keep_to_registers(options, tmp_path):
    source = tmp_path / "kernels.cu"
    source.write_text(kernel_source())
    defines = [f"-D{name}={value}" for name, value in options.defines.items()]
    command = ["nvcc", "-arch=sm_80", "-use_fast_math", "-cubin", "-Xptxas", "-v", *defines]
    made = subprocess.run(
        [*command, "-o", str(tmp_path / "kernels.cubin"), str(source)],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    spilt = dict(re.findall(r"properties for (\w+)\n.* (\d+) bytes spill stores", made.stderr))
    assert set(spilt) == set(KERNELS)
    # On an H200 more warps at a time paid for what they spill in gathering; sums must not spill.
    assert int(spilt["splat"]) <= 16
    assert max(int(spilt[name]) for name in ("gather", "gather_large")) <= 96


@needs_nvrtc
def test_newest_devices_get_ptx(tmp_path):
    code = nvrtc.compile_for(kernel_source(), OPTIONS[0].defines, 999, cache=tmp_path)
    assert b".visible .entry splat" in code


@needs_nvrtc
def test_forgotten_devices_are_refused():
    with pytest.raises(BackendError, match=r"this GPU has 3\.5"):
        nvrtc.compile_for(kernel_source(), OPTIONS[0].defines, 35)


@needs_nvrtc
def test_cache_is_used_and_keyed(tmp_path):
    source = 'extern "C" __global__ void nothing(int *p) { *p = N; }'
    first = nvrtc.compile_for(source, {"N": 1}, 80, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"from the cache")
    assert nvrtc.compile_for(source, {"N": 1}, 80, cache=tmp_path) == b"from the cache"
    assert nvrtc.compile_for(source, {"N": 2}, 80, cache=tmp_path) != first
    assert nvrtc.compile_for(source, {"N": 1}, 90, cache=tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 3


@needs_nvrtc
def test_unusable_cache_does_not_matter(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    source = 'extern "C" __global__ void nothing() {}'
    assert nvrtc.compile_for(source, {}, 80, cache=blocked)[:4] == b"\x7fELF"


@needs_nvrtc
def test_errors_in_kernels_are_told():
    with pytest.raises(BackendError, match="undefined_thing"):
        compiler.compile("__global__ void k() { undefined_thing(); }", [], binary=False)


def test_without_a_compiler_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(nvrtc, "nvrtc_candidates", lambda: ["/nowhere/libnvrtc.so"])
    nvrtc.find_nvrtc.cache_clear()
    try:
        assert nvrtc.find_nvrtc() is None
        with pytest.raises(BackendError, match="was not found"):
            nvrtc.compile_for("", {}, 80)
    finally:
        nvrtc.find_nvrtc.cache_clear()


def test_libraries_are_told_from_their_helpers(tmp_path, monkeypatch):
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc.alt.so.13", "libx.so"):
        (folder / name).touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = [c for c in nvrtc.nvrtc_candidates() if c.startswith(str(tmp_path))]
    assert found == [str(folder / "libnvrtc.so.13")]
    dll = type(folder)("nvrtc64_120_0.dll")
    assert nvrtc._is_nvrtc(dll)
    assert not nvrtc._is_nvrtc(type(folder)("nvrtc-builtins64_128.dll"))


def test_importing_the_engine_loads_nothing_heavy():
    code = (
        "import sys, napari_medgs.rendering.cuda.engine, napari_medgs.rendering.cuda.fit, "
        "napari_medgs.rendering.autograd, napari_medgs.rendering.gsplat\n"
        "heavy = {'torch', 'numba', 'gsplat', 'pooch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
