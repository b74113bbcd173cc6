"""Run all examples and write their pictures and the gallery's page."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PICTURES = ROOT / "docs" / "images" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"

CHAPTERS = {
    "Images and fields": (
        "load_image",
        "fit_gaussians",
        "gaussians_as_data",
        "render_between_slices",
        "several_contrasts",
        "progress_and_cancel",
    ),
    "Segmentation": (
        "segment_strokes",
        "session",
        "suggested_slices",
        "evaluate_mask",
        "parts_from_a_click",
        "joint_fit",
        "mesh_in_millimeters",
    ),
    "Many images": ("batch_fit", "classify_shapes"),
}

INTRODUCTION = """\
# Gallery

Short scripts that run as they are, on a synthetic head or on small generated images. Each writes
its picture into the folder that is given as its argument, by default the current one. The cells
(`# %%`) run one by one in editors that know them, and
`jupytext --to notebook SCRIPT.py` makes a notebook of a script.
"""

# The code is included when the documentation is built. A fence marked "py" is highlighted like
# "python" but is not taken for a piece of code that stands in the page itself.
ENTRY = """
### {title}

{text}

![{title}](images/gallery/{name}.png)

??? example "Code: `examples/{name}.py`"

    ```py
    --8<-- "examples/{name}.py"
    ```
"""


def write_page() -> None:
    """Write the page from the docstrings of the scripts."""
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    named = {name for names in CHAPTERS.values() for name in names}
    if scripts != named:
        raise SystemExit(f"Give these scripts a place in CHAPTERS: {sorted(scripts ^ named)}")
    parts = [INTRODUCTION]
    for chapter, names in CHAPTERS.items():
        parts.append(f"\n## {chapter}\n")
        for name in names:
            source = (EXAMPLES / f"{name}.py").read_text("utf-8")
            title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
            parts.append(ENTRY.format(title=title, text=text, name=name))
    PAGE.write_text("".join(parts), "utf-8")


def write_pictures(names: list[str]) -> None:
    """Run scripts and keep their pictures; all of them if none is named."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in names or [name for chapter in CHAPTERS.values() for name in chapter]:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, str(EXAMPLES / f"{name}.py"), folder],
                check=True,
                env={**os.environ, "MPLBACKEND": "agg"},
            )
            shutil.copy(Path(folder) / f"{name}.png", PICTURES)


if __name__ == "__main__":
    write_page()
    write_pictures(sys.argv[1:])
