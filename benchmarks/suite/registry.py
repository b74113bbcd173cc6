"""The cases of the suite by name, and where their code and data lie."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_medgs.errors import FileError, ParameterError
from suite.results import CaseResult

Say = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """What a case is run with.

    Attributes
    ----------
    data : Path
        The folder of real volumes.
    quick : bool
        Small and short: to see that everything works, not to quote.
    runs : int
        Repetitions of every timing that is short enough; the median counts.
    threads : int, optional
        CPU threads of ours and of the baselines; all CPUs by default.
    seed : int
    say : callable
        Takes one line of progress.
    """

    data: Path
    quick: bool = False
    runs: int = 3
    threads: int | None = None
    seed: int = 0
    say: Say = print

    def file(self, name: str) -> Path:
        """Return the path of a file of the data folder.

        Raises
        ------
        FileError
            When it is not there.
        """
        path = self.data / name
        if not path.exists():
            raise FileError(f"{path} is missing; the benchmark needs it in its data folder.")
        return path


@dataclass(frozen=True)
class Entry:
    """A registered case: what it is about and where its function is.

    ``place`` is "package.module:function", or "benchmarks/file.py:function" for a case whose code
    is only in the source tree. The function takes a :class:`Context` and returns a
    :class:`~suite.results.CaseResult`.
    """

    summary: str
    place: str


ENTRIES: dict[str, Entry] = {
    "fit": Entry(
        "fitting: time to a quality, time of a step; against MedGS's recipe, SIREN, torch, C++",
        "suite.fit_case:run",
    ),
    "memory": Entry(
        "peak memory of fits to a quality; quality by bytes against coarser grids",
        "suite.fit_case:run_memory",
    ),
    "scaling": Entry(
        "seconds and memory by the size of the volume, up to 512 x 512 x 300",
        "suite.fit_case:run_scaling",
    ),
    "interpolation": Entry(
        "slices left out: fields along the motion against plain and optical-flow interpolation",
        "benchmarks/interpolation.py:run_images",
    ),
    "interpolation-dense": Entry(
        "slices left out of volumes that are over-sampled along the slice axis",
        "benchmarks/interpolation.py:run_dense",
    ),
    "interpolation-choice": Entry(
        "the interpolant chosen between slices, without a fit, on crops of many volumes",
        "benchmarks/interpolation_choice.py:run",
    ),
    "mask-interpolation": Entry(
        "masks of slices left out: distances along their motion against plain ones",
        "benchmarks/interpolation.py:run_masks",
    ),
    "segmentation": Entry(
        "strokes and painted slices to masks: against five baselines; users, uncertainty, latency",
        "benchmarks/segmentation.py:run",
    ),
    "refinement": Entry(
        "corrections of an initial mask by a simulated user",
        "benchmarks/segmentation_refinement.py:run",
    ),
    "compression": Entry(
        "compressed fields against image codecs at equal PSNR and SSIM; noise-free references",
        "suite.compression_case:run",
    ),
    "discover": Entry(
        "parts from one click: best nodes, levels and times; against other cells and hierarchies",
        "suite.discover_case:run",
    ),
    "part-strokes": Entry(
        "a part and two corrections against six strokes, by simulated users",
        "suite.part_strokes_case:run",
    ),
    "learn": Entry(
        "trained segmenters: encoders, decoders, supervision at equal time; against MONAI",
        "benchmarks/learning.py:run",
    ),
    "serve": Entry(
        "clicks through the server and the official client: seconds, memory, Dice",
        "benchmarks/serve.py:run",
    ),
    "tissues": Entry(
        "tissue classes without training: mixtures, networks; against voxels and ANTs",
        "suite.tissues_case:run",
    ),
    "hyperbolic": Entry(
        "the tree of parts as points: distortion and Dice in hyperbolic and flat space",
        "suite.hyperbolic_case:run",
    ),
    "classification": Entry(
        "classifying: networks on Gaussians against ResNet-8 and inr2vec, several seeds",
        "benchmarks/classification.py:classification",
    ),
}


def register(name: str, summary: str, place: str) -> None:
    """Add a case to the suite; see :class:`Entry` for the place."""
    ENTRIES[name] = Entry(summary, place)


def source_folder() -> Path | None:
    """Return the top folder of the source tree, or None where only the package is installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "benchmarks").is_dir() and (root / "pyproject.toml").is_file() else None


def choose(names: list[str] | None) -> list[str]:
    """Return the wanted names, all by default.

    Raises
    ------
    ParameterError
        For a name that is not registered.
    """
    for name in names or []:
        if name not in ENTRIES:
            raise ParameterError(
                f"There is no benchmark {name!r}; there are {', '.join(ENTRIES)}."
            )
    return list(names or ENTRIES)


def load(name: str) -> Callable[[Context], CaseResult]:
    """Return the function of a case.

    Raises
    ------
    FileError
        When its code is only in the source tree and that is not here.
    """
    place, _, function = ENTRIES[name].place.partition(":")
    if not place.endswith(".py"):
        return getattr(importlib.import_module(place), function)
    root = source_folder()
    if root is None or not (root / place).is_file():
        raise FileError(f"The benchmark {name!r} needs the source tree: {place} is not here.")
    script = root / place
    if str(script.parent) not in sys.path:  # its neighbors are its helpers
        sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise FileError(f"{script} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def find_data(wanted: Path | None = None) -> Path:
    """Return the folder of real volumes.

    The one that is asked for, else the one that the environment variable MEDGS_TEST_DATA names.

    Raises
    ------
    FileError
        When there is none.
    """
    named = os.environ.get("MEDGS_TEST_DATA")
    if wanted is not None:
        folder, origin = wanted, "--data"
    elif named:
        folder, origin = Path(named), "MEDGS_TEST_DATA"
    else:
        raise FileError(
            "The benchmarks need real volumes: name their folder with --data or in the "
            "environment variable MEDGS_TEST_DATA."
        )
    if not folder.is_dir():
        raise FileError(f"{origin} names {folder}, which is no folder.")
    return folder
