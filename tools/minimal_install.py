"""Install the wheel with its base dependencies alone and do the main work there.

    python tools/minimal_install.py [--venv .venv-minimal] [--skip-blocked]

A user who types ``pip install napari-medgs`` gets no development tools, no Qt binding, no extras.
This makes such an environment, runs the commands in it on generated files and looks at what they
wrote. Then it runs them again with torch and Dask hidden, as on machines that have none. The
environment is kept, and made anew only when the dependencies change. The kernels that numba
compiled there are given to the source tree, so that the tests need not compile them again.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
# Of the development tools and extras; none may be there.
FOREIGN = ("pytest", "hypothesis", "ruff", "mypy", "PySide6", "nilearn", "gsplat",
           "opencv-python-headless")  # fmt: skip
# What the core must be able to do without.
HIDDEN = ("torch", "lightning", "pytorch_lightning", "torch_geometric", "torchmetrics",
          "distributed", "dask")  # fmt: skip
TIMEOUT = 300

MAKE_INPUTS = """
import nibabel, numpy as np
from scipy.ndimage import binary_erosion

z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 56, 48)), indexing="ij")

def ellipsoid(center, radii):
    return sum(((c - m) / r) ** 2 for c, m, r in zip((z, y, x), center, radii)) < 1

labels = np.zeros(z.shape, np.uint8)
labels[ellipsoid((0, 0, 0), (0.8, 0.8, 0.8))] = 1
labels[ellipsoid((0.1, 0.15, -0.1), (0.4, 0.35, 0.4))] = 2
image = np.array([20.0, 90.0, 170.0])[labels] + np.random.default_rng(0).normal(0, 5, z.shape)

strokes = np.zeros_like(labels)  # one row of a class's inside in each of five slices
for k in (8, 14, 20, 26, 32):
    for value, stroke in ((0, 3), (1, 1), (2, 2)):
        inside = binary_erosion(labels[k] == value, iterations=2)
        rows = np.flatnonzero(inside.any(axis=1))
        if len(rows):
            row = rows[len(rows) // 2]
            strokes[k, row, inside[row]] = stroke

affine = np.diag([-2.0, -2.0, 3.0, 1.0])
for name, array in (("image", image.astype(np.float32)), ("labels", labels), ("strokes", strokes)):
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), name + ".nii.gz")
"""

# The manifest's commands can be imported, but for those that need a Qt binding, which is the
# user's choice and not there.
IMPORT_COMMANDS = """
import importlib
from npe2 import PluginManifest

manifest = PluginManifest.from_distribution("napari-medgs")
for command in manifest.contributions.commands:
    module, _, name = command.python_name.partition(":")
    try:
        getattr(importlib.import_module(module), name)
    except Exception as error:
        if type(error).__name__ != "QtBindingsNotFoundError":
            raise
        print(command.python_name, "needs a Qt binding")
    else:
        print(command.python_name, "imported")
"""

HIDE = """
import importlib.machinery as machinery

HIDDEN = {hidden!r}
_find_spec = machinery.PathFinder.find_spec


def _without(fullname, path=None, target=None):
    if fullname.partition(".")[0] in HIDDEN:
        return None
    return _find_spec(fullname, path, target)


machinery.PathFinder.find_spec = staticmethod(_without)
"""


class Failed(Exception):
    """A check did not hold."""


def require(condition: object, explanation: str) -> None:
    """Raise `Failed` unless a condition holds."""
    if not condition:
        raise Failed(explanation)


class Environment:
    """A virtual environment with the package in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / ("python.exe" if os.name == "nt" else "python")
        packages = sysconfig.get_path("purelib", "venv", vars={"base": str(folder)})
        self.package = Path(packages) / "napari_medgs"

    def pip(self, command: str, *words: str) -> None:
        """Run a command of pip."""
        pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, command, "-qq", *words], check=True, cwd=ROOT)

    def install(self, source: Path) -> str:
        """Build the wheel and install it with its base dependencies; the wheel's name.

        Quick when the dependencies are there already.
        """
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pins = (source / "constraints.txt").read_text().split()
        stamp = self.folder / ".installed"
        wanted = [TORCH, sys.version, project["dependencies"], self.pins_that_count(pins)]
        known = stamp.is_file() and stamp.read_text(encoding="utf-8") == json.dumps(wanted)
        if not known:
            shutil.rmtree(self.folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
            self.pip("install", "--upgrade", "pip>=25.1")
        with tempfile.TemporaryDirectory(prefix="napari-medgs-") as folder:
            self.pip("wheel", "--no-deps", "-w", folder, str(source))
            (wheel,) = Path(folder).glob("*.whl")
            if known:
                self.pip("install", "--no-deps", "--force-reinstall", str(wheel))
                return wheel.name
            # First and exactly, so that a CPU build is taken where one is at hand.
            self.pip("install", "--no-compile", TORCH)
            self.pip("install", "--no-compile", "-c", "constraints.txt", str(wheel))
        wanted[-1] = self.pins_that_count(pins)
        stamp.write_text(json.dumps(wanted), encoding="utf-8")
        return wheel.name

    def pins_that_count(self, pins: list[str]) -> list[str]:
        """Those of packages that are installed here."""
        if not self.python.exists():
            return []
        command = [self.python, "-m", "pip", "list", "--format", "json"]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        names = {entry["name"].lower().replace("_", "-") for entry in listed}
        return [p for p in pins if p.partition("==")[0].lower().replace("_", "-") in names]


def same_files(installed: Path, source: Path) -> dict[Path, Path]:
    """Return the modules that are the same in both folders: source by installed."""
    modules = {path: source / path.relative_to(installed) for path in installed.rglob("*.py")}
    return {
        here: there
        for here, there in modules.items()
        if there.is_file() and here.read_bytes() == there.read_bytes()
    }


def take_times(modules: dict[Path, Path]) -> None:
    """Give installed modules the times of the sources, by which numba knows what it compiled.

    Kernels of an earlier installation go: numba would not see that others that they call changed.
    """
    for here, there in modules.items():
        for kernels in (here.parent / "__pycache__").glob(f"{here.stem}.*.nb[ic]"):
            kernels.unlink()
        times = there.stat()
        os.utime(here, ns=(times.st_atime_ns, times.st_mtime_ns))


def share_kernels(modules: dict[Path, Path]) -> int:
    """Copy compiled kernels to the sources where they have none yet; return how many."""
    shared = 0
    for here, there in modules.items():
        for index in (here.parent / "__pycache__").glob(f"{here.stem}.*.nbi"):
            folder = there.parent / "__pycache__"
            folder.mkdir(exist_ok=True)
            # Tests may be running already, and compile the same kernel: the index says whose
            # data count, and numba takes data that are not there yet for not compiled.
            if not copy_where_none_is(index, folder):
                continue
            for data in index.parent.glob(f"{glob.escape(index.stem)}.*.nbc"):
                copy_where_none_is(data, folder)
            shared += 1
    return shared


def copy_where_none_is(file: Path, folder: Path) -> bool:
    """Copy a file at once and whole, unless one of its name is there; whether it was copied."""
    temporary = folder / f"{file.name}.{os.getpid()}"
    shutil.copy(file, temporary)
    try:
        os.link(temporary, folder / file.name)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


class Bench:
    """Runs commands of an environment in a folder of their own."""

    def __init__(self, environment: Environment, folder: Path, hidden: tuple[str, ...]) -> None:
        self.environment = environment
        self.folder = folder
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.variables["PYTHONIOENCODING"] = "utf-8"
        if hidden:
            hide = folder / "hide"
            hide.mkdir()
            (hide / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
            self.variables["PYTHONPATH"] = str(hide)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        program = self.environment.bin / str(words[0])
        return subprocess.run(
            [program, *map(str, words[1:])], cwd=self.folder, env=self.variables,
            capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, timeout=TIMEOUT,
        )  # fmt: skip

    def works(self, *words: object) -> str:
        """Run a program that must succeed; its standard output."""
        done = self.run(*words)
        require(
            done.returncode == 0,
            f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}",
        )
        return done.stdout

    def medgs(self, *words: object) -> dict:
        """Run a command of ours with ``--json``, which must succeed; what it wrote there."""
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        self.works("napari-medgs", *words, "--json", result)
        return json.loads(result.read_text(encoding="utf-8"))

    def refuses(self, *words: object, names: str) -> None:
        """Run a command that must fail with status 1 and one sentence that has the pip line."""
        done = self.run("napari-medgs", *words)
        said = " ".join(done.stderr.split())
        what = f"{' '.join(map(str, words))}: status {done.returncode}: {said[-300:]}"
        require(done.returncode == 1, what)
        require("Traceback" not in said, what)
        require("pip install" in said and names in said, f"no 'pip install ... {names}' in {what}")


Check = Callable[[Bench], None]


def nothing_foreign(bench: Bench) -> None:
    """The environment is sound, and no development tool or extra is in it."""
    bench.works("python", "-m", "pip", "check")
    listed = json.loads(bench.works("python", "-m", "pip", "list", "--format", "json"))
    names = {entry["name"].lower() for entry in listed}
    found = [name for name in FOREIGN if name.lower() in names]
    require(not found, f"installed although not asked for: {found}")
    where = bench.works("python", "-c", "import napari_medgs; print(napari_medgs.__file__)")
    require("site-packages" in where, f"the package comes from {where}")


def hidden_modules_are_hidden(bench: Bench) -> None:
    """What this run is to do without cannot be imported."""
    for name in HIDDEN:
        code = f"import importlib.util as u; assert u.find_spec({name!r}) is None; import {name}"
        done = bench.run("python", "-c", code)
        require("ModuleNotFoundError" in done.stderr, f"{name} can be imported: {done.stderr}")


def inputs(bench: Bench) -> None:
    """A NIfTI image, its labels and strokes."""
    bench.works("python", "-c", MAKE_INPUTS)


def sample(bench: Bench) -> None:
    """``sample`` writes files."""
    bench.works("napari-medgs", "sample", "-o", "sample")
    require(any((bench.folder / "sample").rglob("*.nii.gz")), "sample wrote no image")


def fit(bench: Bench) -> None:
    """``fit`` reaches a quality and writes a field."""
    words = ("fit", "image.nii.gz", "--mask", "labels.nii.gz", "-o", "field.medgs.safetensors")
    result = bench.medgs(*words)
    require(result["psnr"] > 28, f"{result['psnr']} dB")
    require(result["dice_mean"] > 0.99, f"Dice {result['dice_mean']}")
    require((bench.folder / "field.medgs.safetensors").stat().st_size > 10_000, "a tiny field")


def info(bench: Bench) -> None:
    """``info`` tells an image's and a field's shape."""
    for name in ("image.nii.gz", "field.medgs.safetensors"):
        found = bench.medgs("info", name)["shape"]
        require(found == [40, 56, 48], f"{name}: shape {found}")


def _dice(bench: Bench, name: str) -> float:
    return bench.medgs("evaluate", name, "labels.nii.gz")["mean"]["dice"]


def render(bench: Bench) -> None:
    """``render`` brings labels back."""
    words = ("render", "field.medgs.safetensors", "--head", "seg", "-o", "rendered.nii.gz")
    bench.works("napari-medgs", *words)
    dice = _dice(bench, "rendered.nii.gz")
    require(dice > 0.99, f"Dice {dice}")


def segment(bench: Bench) -> None:
    """``segment`` makes a mask of strokes."""
    words = ("--prompts", "strokes.nii.gz", "--background-label", "3", "-o", "mask.nii.gz")
    bench.works("napari-medgs", "segment", "image.nii.gz", *words)
    dice = _dice(bench, "mask.nii.gz")
    require(dice > 0.97, f"Dice {dice}")


def mesh(bench: Bench) -> None:
    """``mesh`` writes closed surfaces of the right volume."""
    surfaces = bench.medgs("mesh", "field.medgs.safetensors", "-o", "meshes")["labels"]
    require(len(list((bench.folder / "meshes").glob("*.ply"))) == 2, "not two meshes")
    for label, volume in (("1", 289.2), ("2", 35.5)):
        found = surfaces[label]
        require(found["closed"], f"the mesh of label {label} is open")
        require(abs(found["volume_ml"] / volume - 1) < 0.03, f"{label}: {found['volume_ml']} ml")


def manifest(bench: Bench) -> None:
    """The plug-in manifest is valid and names what exists."""
    bench.works("npe2", "validate", "napari_medgs")
    bench.works("python", "-c", IMPORT_COMMANDS)


def classify_says_what_is_missing(bench: Bench) -> None:
    """``classify`` without torch."""
    bench.refuses("classify", "image.nii.gz", "--model", "retinamnist", names="torch")


def train_says_what_is_missing(bench: Bench) -> None:
    """``train`` without torch."""
    bench.refuses("train", "breastmnist", "-o", "classifier.safetensors", names="torch")


def scheduler_says_what_is_missing(bench: Bench) -> None:
    """``fit-many --scheduler`` without Dask."""
    (bench.folder / "cohort").mkdir()
    shutil.copy(bench.folder / "image.nii.gz", bench.folder / "cohort")
    words = ("fit-many", "cohort", "-o", "fields", "--scheduler", "tcp://127.0.0.1:9")
    bench.refuses(*words, names="distributed")


MAIN_WORK: tuple[Check, ...] = (inputs, sample, fit, info, render, segment, mesh)
FULL: tuple[Check, ...] = (nothing_foreign, *MAIN_WORK, manifest)
BLOCKED: tuple[Check, ...] = (
    hidden_modules_are_hidden,
    *MAIN_WORK,
    manifest,
    classify_says_what_is_missing,
    train_says_what_is_missing,
    scheduler_says_what_is_missing,
)


def run_checks(title: str, checks: tuple[Check, ...], bench: Bench) -> tuple[int, int]:
    """Run checks in order, all of them; how many held and how many did not."""
    print(title)
    failures = 0
    for check in checks:
        start = time.perf_counter()
        try:
            check(bench)
            outcome = "ok"
        except (Failed, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            failures += 1
            outcome = f"FAILED {type(error).__name__}: {error}"
        name = check.__name__.replace("_", " ")
        print(f"  {name:34} {time.perf_counter() - start:5.1f} s  {outcome}", flush=True)
    return len(checks) - failures, failures


def main() -> int:
    """Build, install, check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-minimal")
    parser.add_argument("--skip-blocked", action="store_true", help="not without torch and Dask")
    options = parser.parse_args()

    environment = Environment(options.venv.resolve())
    start = time.perf_counter()
    name = environment.install(ROOT)
    print(f"{name} in {environment.folder}, {time.perf_counter() - start:.0f} s")
    modules = same_files(environment.package, ROOT / "src" / "napari_medgs")
    take_times(modules)
    with tempfile.TemporaryDirectory(prefix="napari-medgs-") as temporary:
        folder = Path(temporary)
        runs = [("with the base dependencies alone:", FULL, ())]
        if not options.skip_blocked:
            runs.append((f"without {', '.join(HIDDEN)}:", BLOCKED, HIDDEN))
        passed = failed = shared = 0
        for number, (title, checks, hidden) in enumerate(runs):
            work = folder / f"run{number}"
            work.mkdir()
            good, bad = run_checks(title, checks, Bench(environment, work, hidden))
            passed, failed = passed + good, failed + bad
            shared += share_kernels(modules)  # early: the tests may have begun
    print(f"minimal install: {passed} checks held, {failed} did not")
    print(f"{shared} compiled kernels were given to the tests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
