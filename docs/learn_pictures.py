"""Make the filmstrip of Learn: train, pre-segment, two strokes, keep, train on.

    python docs/learn_pictures.py IMAGE FOLDER

IMAGE is the MNI152 brain of nilearn. The cases are this brain deformed, with noise, and the
ventricles that the solver finds from a few strokes: they show the steps, and how well a model
does on patients they do not show.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filmstrip_pictures import BACK, BACKGROUND, BESIDE, PLACE, Studio, strip
from numpy.typing import NDArray

CASES, SPACING = 5, 2.8
LOW, HIGH = (0.27, 0.27, 0.22), (0.68, 0.75, 0.78)
"""Of the box around the ventricles, (z, y, x) as shares of the image."""
MINUTES, MORE_MINUTES = 1.6, 0.4
INSIDE = (
    (*PLACE[:2], 0.445, 0.465), (*PLACE[:2], 0.515, 0.54), (*BACK, 0.38, 0.41),
    (*BACK, 0.585, 0.615),
)  # fmt: skip


def ventricles(image: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the box around the ventricles, and their mask, at a coarse spacing."""
    from scipy.ndimage import zoom

    from napari_medgs.io import read_volume
    from napari_medgs.segmentation import Prompts, segment

    volume = read_volume(image)
    shape = volume.shape
    strokes = np.zeros(shape, np.uint8)
    for value, lines in ((1, INSIDE), (255, (*BACKGROUND, *BESIDE))):
        for z, y, first, last in lines:
            row = slice(round(first * shape[2]), round(last * shape[2]))
            y = round(y * shape[1])
            strokes[round(z * shape[0]), y - 1 : y + 1, row] = value
    mask = segment(volume, Prompts(labels=strokes, background=255)).labels == 1
    box = tuple(
        slice(round(a * n), round(b * n)) for a, b, n in zip(LOW, HIGH, shape, strict=True)
    )
    small = zoom(volume.channel(0)[box], 1 / SPACING, order=1)
    return small.astype(np.float32), zoom(mask[box].astype(float), 1 / SPACING, order=1) > 0.5


def deformed(
    image: NDArray[np.float32], mask: NDArray[Any], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return image and mask bent smoothly, with other gray values and noise."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    random = np.random.default_rng(seed)
    places = np.indices(image.shape, dtype=float)
    for axis in range(3):
        shift = gaussian_filter(random.standard_normal(image.shape), 7, mode="wrap")
        places[axis] += 2.5 * shift / shift.std()
    bent = map_coordinates(image, places, order=1, mode="nearest")
    bent = bent**0.9 if seed % 2 else bent
    bent = bent + 0.05 * image.std() * random.standard_normal(image.shape)
    moved = map_coordinates(mask.astype(float), places, order=1, mode="nearest") > 0.5
    return bent.astype(np.float32), moved.astype(np.uint8)


def write_cases(image: Path, folder: Path) -> tuple[Path, Path, NDArray[np.uint8]]:
    """Write finished cases and a new image; return the folders' paths and the image's mask."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume, spacing_affine
    from napari_medgs.io import write_image
    from napari_medgs.segmentation import CaseStore, ClassList

    data, mask = ventricles(image)
    grid = Grid(data.shape, spacing_affine((SPACING,) * 3))
    store = CaseStore(folder / "medgs-cases")
    for k in range(CASES):
        bent, truth = deformed(data, mask, k)
        volume = Volume(bent[None], grid)
        store.add(f"brain{k + 1}", volume, truth, ClassList.of({1: "ventricles"}))
    bent, truth = deformed(data, mask, CASES)
    return store.folder, Path(write_image(folder / "brain6.nii.gz", bent, grid)), truth


def picture_of(learn: Any) -> NDArray[np.uint8]:
    """Return a square picture of the button, the curve and the result of Learn."""
    box = learn.panel.geometry().united(learn.curve.geometry()).united(learn.result.geometry())
    grab = learn.body.parentWidget().grab(box.adjusted(-8, -8, 8, 8)).toImage()
    grab = grab.convertToFormat(grab.Format.Format_RGB888)
    rows = np.frombuffer(grab.constBits(), np.uint8).reshape(grab.height(), grab.bytesPerLine())
    panel = rows[:, : grab.width() * 3].reshape(grab.height(), grab.width(), 3)
    side = max(panel.shape[:2])
    page = np.empty((side, side, 3), np.uint8)
    page[:] = panel[1, 1]
    top, left = (side - panel.shape[0]) // 2, (side - panel.shape[1]) // 2
    page[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return page


def worst_slice(mask: NDArray[Any], truth: NDArray[Any]) -> int:
    """Return the slice with the most errors, of those that show much of the object."""
    area = truth.sum((1, 2))
    wrong = (mask != truth).sum((1, 2))
    return int(np.where(area > 0.5 * area.max(), wrong, -1).argmax())


def correct(studio: Studio, truth: NDArray[np.uint8], z: int) -> None:
    """Draw one stroke through the largest error of a slice."""
    from scipy.ndimage import distance_transform_edt, label

    widget = studio.widget
    wrong = (widget.controller.session.labels == 1)[z] != (truth == 1)[z]
    if not wrong.any():
        return
    parts, _ = label(wrong)
    part = parts == np.bincount(parts[wrong]).argmax()
    y, x = np.unravel_index(distance_transform_edt(part).argmax(), part.shape)
    value = 1 if truth[z, y, x] else widget.view.table.background
    layer = widget.strokes_layer
    layer.brush_size = 1
    with layer.block_history():
        for row in np.flatnonzero(part[:, x]):
            layer.paint((z, int(row), int(x)), value)
    studio.solved()


def film(studio: Studio, cases: Path, truth: NDArray[np.uint8]) -> list[tuple[str, Any]]:
    """Go once through everything."""
    from napari_medgs.metrics import dice
    from napari_medgs.plugin.learn.widget import LearnWidget

    learn = LearnWidget(studio.viewer)
    studio.viewer.window.add_dock_widget(learn, name="Learn", tabify=True)
    learn.source.setText(str(cases))
    learn.minutes.setValue(MINUTES)
    learn.panel.button.click()
    studio.until(lambda: learn.result.isVisible(), 280)
    frames = [(f"Train on {CASES} finished cases", picture_of(learn))]
    segment = studio.widget
    segment.parent().raise_()
    segment.view.presegment.click()
    studio.until(lambda: not segment.presegment.busy and bool(segment.state.volumes_ml))
    labels = segment.controller.session.labels
    print("model alone", round(dice(labels == 1, truth == 1), 3), segment.view.model_note.text())
    z = worst_slice(labels == 1, truth == 1)
    studio.viewer.dims.set_current_step(0, z)
    frames.append(("Pre-segment the next image", studio.frame()))
    for _ in range(2):
        correct(studio, truth, z)
        now = segment.controller.session.labels
        print("after a stroke", round(dice(now == 1, truth == 1), 3))
    frames.append(("Two strokes correct it", studio.frame()))
    segment.view.saving.keep.click()
    studio.until(lambda: "Kept" in segment.state.message)
    studio.rest()
    print(segment.state.message)
    learn.parent().raise_()
    learn.go_on.setChecked(True)
    learn.minutes.setValue(MORE_MINUTES)
    learn.panel.button.click()
    studio.rest()
    studio.until(lambda: learn.result.isVisible(), 280)
    frames.append(("Keep case, and train on", picture_of(learn)))
    print(learn.result.text())
    return frames


def main(image: str, folder: str) -> None:
    """Write the strip."""
    from napari_medgs.plugin.segment import autosave as segment_autosave

    with tempfile.TemporaryDirectory() as place:
        segment_autosave.folder = partial(Path, place, "autosave")
        cases, new, truth = write_cases(Path(image), Path(place))
        studio = Studio(new)
        strip(film(studio, cases, truth), Path(folder) / "learn.png")
        studio.viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
