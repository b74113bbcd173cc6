"""Points and boxes of ``segment``: read from the options, then placed on the image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medgs.cli.places import place_box, place_point, read_label, read_numbers
from napari_medgs.errors import LabelError

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid
    from napari_medgs.segmentation.prompts.prompts import Box, Point

PANEL = "Prompts"
POINT, BOX = "LABEL Z Y X", "LABEL Z0 Y0 X0 Z1 Y1 X1"

PointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar=POINT,
        help="A voxel of a class (label 0: background) by its index in the stored file, in the "
        "order that info prints; the first voxel is 0. May be given several times.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
BoxOption = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        metavar=BOX,
        help="A box that holds all of a class: its first voxel, and one past its last. May be "
        "given several times.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class PlacePrompts:
    """Points and boxes as they were given.

    Attributes
    ----------
    points, boxes : tuple of (str, int, tuple of float)
        How it was written, its label, and three or six coordinates.
    world : bool
        Whether the coordinates are RAS millimeters.
    """

    points: tuple[tuple[str, int, tuple[float, ...]], ...] = ()
    boxes: tuple[tuple[str, int, tuple[float, ...]], ...] = ()
    world: bool = False

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self.points or self.boxes)

    @classmethod
    def read(
        cls,
        points: Sequence[str],
        boxes: Sequence[str],
        *,
        world: bool,
        unlabeled: int,
        background: int | None,
    ) -> PlacePrompts:
        """Read the options' texts.

        Parameters
        ----------
        points, boxes : sequence of str
            Such as "1 10 20 30".
        world : bool
        unlabeled : int
            The label that none may have; 0 means background for a point all the same.
        background : int, optional
            A further label that means background.

        Raises
        ------
        typer.BadParameter
            When one is no place, or a label cannot be one.
        """
        if world and not (points or boxes):
            raise typer.BadParameter("--world is for --point and --box; give one.")
        found: dict[str, list[tuple[str, int, tuple[float, ...]]]] = {"--point": [], "--box": []}
        for option, texts, metavar in (("--point", points, POINT), ("--box", boxes, BOX)):
            for text in texts:
                label, *place = read_numbers(option, text, metavar)
                value = read_label(option, text, label, unlabeled)
                if option == "--box" and value in (0, background):
                    raise typer.BadParameter(
                        f"--box {text}: a box holds a class, not background; around the boxes "
                        "all is background anyway."
                    )
                found[option].append((f"{option} {text}", value, tuple(place)))
        return cls(tuple(found["--point"]), tuple(found["--box"]), world)

    def check_classes(self, background: int | None) -> None:
        """Refuse points of one class alone.

        Parameters
        ----------
        background : int, optional
            The label that means background besides 0.

        Raises
        ------
        LabelError
            Saying what to add.
        """
        values = {0 if value == background else value for _, value, _ in self.points}
        if self.boxes or len(values) != 1:
            return
        (value,) = values
        if value == 0:
            raise LabelError("--point marks background only: give a --point of a class too.")
        raise LabelError(
            f"--point marks the class {value} only: give a --point of 0 (background) too, or a "
            "--box. The command parts takes a part of the image by one point (--at)."
        )

    def on(self, grid: Grid, image: str) -> tuple[tuple[Point, ...], tuple[Box, ...]]:
        """Return the prompts on the canonical grid of an image.

        Parameters
        ----------
        grid : Grid
        image : str
            Its file, for messages.

        Raises
        ------
        GeometryError
            When one lies outside of the image.
        """
        from napari_medgs.segmentation.prompts.prompts import Box, Point

        points = tuple(
            Point(place_point(grid, p, world=self.world, what=text, image=image), value)
            for text, value, p in self.points
        )
        boxes = []
        for text, value, p in self.boxes:
            start, stop = place_box(grid, p, world=self.world, what=text, image=image)
            boxes.append(Box(start, stop, value))
        return points, tuple(boxes)
