"""What a benchmark ran on: processor, memory, versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from napari_medgs import __version__
from napari_medgs._util.threads import default_threads

PACKAGES = ("numpy", "numba", "scipy", "scikit-image", "torch")


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # macOS, Windows
        pass
    return platform.processor() or platform.machine()


def vector_units() -> str:
    """Return the widest vector unit that numba will compile for."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    for feature, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON")):
        if features.get(feature):
            return name
    return "baseline"


def describe_machine() -> dict[str, Any]:
    """Return processor, cores usable by this process, memory, system and versions."""
    import psutil

    versions = {"napari-medgs": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    load = psutil.getloadavg()[0]
    return {
        "cpu": cpu_name(),
        "vector": vector_units(),
        "cores": default_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(load, 2),
        "versions": versions,
    }


def machine_line(machine: dict[str, Any]) -> str:
    """Return the description in one line of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']} ({machine['vector']}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}; load before the run "
        f"{machine['load_before']}; {versions}"
    )
