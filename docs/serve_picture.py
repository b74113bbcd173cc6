"""Make the picture of masks after clicks: ``python docs/serve_picture.py [DATA] [OUT]``.

The user of ``benchmarks/serve_quality.py`` clicks a right kidney and a stomach of an abdominal CT
(example of TotalSegmentator, Apache-2.0). The server gives the same masks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import napari_medgs as mg
from napari_medgs.segmentation.api import fit_for_segmentation

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from segmentation_cases import cases_of  # noqa: E402
from segmentation_measure import cropped  # noqa: E402
from serve_quality import ORGANS, deepest, next_click  # noqa: E402
from suite.registry import find_data  # noqa: E402

CASE = "abdomen"
SHOWN = {"kidney right": "right kidney", "stomach": "stomach"}
CLICKS = 1, 3, 5, 6
WINDOW = -150, 250  # Hounsfield units
MARGIN = 20  # pixels around a structure
Mask = NDArray[np.bool_]


def course(
    volume: mg.Volume, field: mg.GaussianField, truth: Mask, sampling: NDArray[Any]
) -> list[Mask]:
    """Return the mask after each click."""
    segmenter = mg.InteractiveSegmenter()
    segmenter.set_image(volume, field=field)
    masks: list[Mask] = []
    click = deepest(truth, sampling), True
    while click is not None and len(masks) < max(CLICKS):
        segmenter.object.add_point(*click)
        segmenter.object.answer()
        masks.append(segmenter.labels > 0)
        click = next_click(masks[-1], truth, sampling)
    return masks


def main(data: Path | None, output: Path) -> None:
    """Click, and draw the slice in which a structure is largest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    volume, labels = cropped(*next(cases_of("all", (CASE,))).load(data or find_data(None)))
    sampling = np.asarray(volume.spacing) / min(volume.spacing)
    field = fit_for_segmentation(volume)
    figure, axes = plt.subplots(len(SHOWN), len(CLICKS), figsize=(9.6, 5.0))
    for row, (name, title) in zip(axes, SHOWN.items(), strict=True):
        truth = labels == ORGANS[CASE].index(name) + 1
        masks = course(volume, field, truth, sampling)
        z = int(deepest(truth, sampling)[0])
        hits = [np.flatnonzero(truth[z].any(axis=1 - a)) for a in range(2)]
        box = tuple(slice(max(0, int(h[0]) - MARGIN), int(h[-1]) + 1 + MARGIN) for h in hits)
        for axis, count in zip(row, CLICKS, strict=True):
            mask = masks[count - 1]
            both = np.count_nonzero(mask & truth)
            dice = 2 * both / (np.count_nonzero(mask) + np.count_nonzero(truth))
            axis.imshow(volume.data[0, z][box], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
            red = np.zeros((*mask[z][box].shape, 4))
            red[mask[z][box]] = 0.85, 0.1, 0.1, 0.65
            axis.imshow(red)
            axis.contour(truth[z][box], [0.5], colors="lime", linewidths=1)
            axis.set_title(f"{title}, {count} click{'s' * (count > 1)}: {dice:.2f}", fontsize=9)
            axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(output, dpi=100)


if __name__ == "__main__":
    given = [Path(a) for a in sys.argv[1:]]
    picture = given[1] if len(given) > 1 else DOCS / "images" / "serve_clicks.png"
    main(given[0] if given else None, picture)
