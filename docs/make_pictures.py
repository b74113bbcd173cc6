"""Make the pictures of README and docs from a real run of the demo.

Run ``xvfb-run -a python docs/make_pictures.py``, without ``xvfb-run`` where there is a display.
Shows the glioma case where MEDGS_TEST_DATA names a folder that has it, else the synthetic head.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
WIDTH, COLOURS = 1080, 160
PICTURES = {"slices.png": "fit.png", "mesh.png": "mesh.png", "napari.png": "viewer.png"}


def shrink(source: Path, target: Path) -> None:
    """Write a picture smaller and with a palette; dark plots lose nothing visible."""
    picture = Image.open(source).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, "-m", "napari_medgs", "demo", "-o", folder]
        subprocess.run(demo, check=True)
        IMAGES.mkdir(exist_ok=True)
        for source, target in PICTURES.items():
            if (Path(folder) / source).exists():
                shrink(Path(folder) / source, IMAGES / target)
                print(IMAGES / target, (IMAGES / target).stat().st_size)


if __name__ == "__main__":
    main()
