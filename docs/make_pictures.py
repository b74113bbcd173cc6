"""Make the documentation's pictures from real runs: ``make_pictures.py [BREASTMNIST.npz]``.

Without the file BreastMNIST is downloaded; its use is told in ``classify_picture.py``. The others
show the MNI152 brain that comes with nilearn, an average of 152 people that may be passed on
freely (McConnell Brain Imaging Centre, Montreal Neurological Institute); no patient's images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from napari_medgs.demo import cases, pictures
from napari_medgs.fitting import FitParams, fit
from napari_medgs.io import write_image
from napari_medgs.io.fields import save_field
from napari_medgs.io.medmnist.download import fetch
from napari_medgs.meshing import mesh_from_field
from napari_medgs.rendering import render, render_labels

HERE = Path(__file__).resolve().parent / "images"
MOST_COLORS = 256


def shrink(path: Path, width: int) -> None:
    """Scale a picture down and limit its colors, for a small file."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    height = round(picture.height * width / picture.width)
    if width < picture.width:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.quantize(MOST_COLORS, method=Image.Quantize.MAXCOVERAGE, kmeans=2).save(
        path, optimize=True
    )
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


def make(breast: Path) -> None:
    """Draw one slice beside its reconstruction, surfaces, a viewer, and the widgets."""
    case = cases.choose_case("mni152")
    result = fit(case.volume, FitParams(), case.labels, class_names=case.names)
    image, labels = render(result.field)[0], render_labels(result.field)
    # How long it takes belongs into the benchmarks, where the machine is described.
    facts = {key: result.metrics[key] for key in ("n_gaussians", "psnr")}
    pictures.draw_slices(HERE / "fit.png", case, image, labels, facts, planes=("axial",))
    pictures.draw_meshes(HERE / "mesh.png", case, result.field, mesh_from_field(result.field))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_image(place / "MNI152.nii.gz", case.volume.data, case.volume.grid)
        save_field(place / "field.medgs.safetensors", result.field)
        screenshot(place / "MNI152.nii.gz", place / "field.medgs.safetensors")
    classify = [sys.executable, str(HERE.parent / "classify_picture.py")]
    in_viewer([*classify, str(breast), str(HERE / "classify.png")])


def screenshot(image: Path, field: Path) -> None:
    """Show image and field in a viewer, and the image with the Segment widget."""
    view = [sys.executable, "-m", "napari_medgs.plugin.demo_view"]
    in_viewer([*view, str(image), str(field), str(HERE / "viewer.png")])
    segment = [sys.executable, str(HERE.parent / "segment_picture.py")]
    in_viewer([*segment, str(image), str(HERE / "segment.png")])
    strips = [sys.executable, str(HERE.parent / "filmstrip_pictures.py")]
    in_viewer([*strips, str(image), str(HERE)])
    discover = [sys.executable, str(HERE.parent / "discover_pictures.py")]
    in_viewer([*discover, str(image), str(HERE)])


def in_viewer(command: list[str]) -> None:
    """Run a command that opens a window, on a virtual display where there is none."""
    if not os.environ.get("DISPLAY") and shutil.which("xvfb-run"):
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24 +extension GLX", *command]
    subprocess.run(command, check=True, timeout=300)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else fetch("breastmnist"))
    widths = {"fit.png": 1280, "mesh.png": 1100, "viewer.png": 1200, "segment.png": 1200,
              "classify.png": 1200, "parts.png": 1400, "steps.png": 1400,
              "tissues.png": 1200, "map.png": 1200}  # fmt: skip
    for name, width in widths.items():
        shrink(HERE / name, width)
