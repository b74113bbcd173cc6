"""Images of a folder, each with the prompts of another folder that have its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_medgs.cli.evaluate_cases import case_name
from napari_medgs.errors import FileError

SEGMENTATION = ".seg.nrrd"  # beside its image, as 3D Slicer saves it


@dataclass(frozen=True)
class PromptedImage:
    """The prompts of one case and its images.

    Attributes
    ----------
    prompts : Path
    images : list of Path
        One in every folder of images that has one.
    output : str
        Name of the mask: the image's, or the prompts' where that format is not written.
    """

    prompts: Path
    images: list[Path]
    output: str


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, hidden ones and the voxels of .hdr files left out."""
    from napari_medgs.io.folders import visible_entries
    from napari_medgs.io.formats import is_image_file

    files = [file for file in visible_entries(folder) if file.is_file() and is_image_file(file)]
    headers = {case_name(file) for file in files if ".hdr" in file.suffixes[-2:]}
    return [
        file
        for file in files
        if ".img" not in file.suffixes[-2:] or case_name(file) not in headers
    ]


def pair_prompts(prompts: Path, places: Sequence[Path]) -> list[PromptedImage]:
    """Pair prompts with the images of the same name in each of some folders.

    Formats may differ, as in ``evaluate``; of several images the one with just the prompts' file
    name is taken.

    Parameters
    ----------
    prompts : Path
        A folder.
    places : sequence of Path
        Folders, several for contrasts.

    Returns
    -------
    list of PromptedImage

    Raises
    ------
    FileError
        When several files could be meant.
    """
    listed = {place: _by_case(place) for place in places}
    taken: dict[str, Path] = {}
    pairs = []
    for file in image_files(prompts):
        images = [
            image
            for place in places
            if (image := _image_of(file, place, listed[place])) is not None
        ]
        output = _output_name(file, images)
        if output in taken:
            raise FileError(
                f"{file}: {taken[output].name} is for the same image; leave one of them in the "
                "folder."
            )
        taken[output] = file
        pairs.append(PromptedImage(file, images, output))
    return pairs


def _by_case(place: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in image_files(place):
        found.setdefault(case_name(path), []).append(path)
    return found


def _image_of(prompts: Path, place: Path, listed: dict[str, list[Path]]) -> Path | None:
    """Return the image in a folder that prompts belong to, if there is one."""
    name = case_name(prompts)
    alike = listed.get(name, [])
    if place / prompts.name in alike:
        return place / prompts.name
    images = [path for path in alike if not path.name.lower().endswith(SEGMENTATION)]
    if len(images) > 1:
        raise FileError(
            f"{prompts}: the case {name} has several images in {place}: "
            f"{', '.join(path.name for path in images)}; leave one of them there."
        )
    return images[0] if images else None


def _output_name(prompts: Path, images: Sequence[Path]) -> str:
    from napari_medgs.io.formats import is_written

    for path in (*images[:1], prompts):
        if is_written(path):
            return path.name
    return f"{case_name(prompts)}.nii.gz"
