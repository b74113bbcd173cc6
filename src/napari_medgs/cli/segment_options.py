"""The options of ``segment``: prompts, trained segmenters, and what else is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medgs.cli.explain import Explain
from napari_medgs.cli.options import FieldOption
from napari_medgs.cli.place_prompts import BoxOption, PlacePrompts, PointOption
from napari_medgs.cli.places import WorldOption

if TYPE_CHECKING:
    from napari_medgs.learning import Segmenter

PROMPTS, TRAINED, OUTPUTS = "Prompts", "Trained segmenter", "More outputs"


@dataclass(frozen=True)
class Prompting:
    """What a mask starts from: files and places that the user gives."""

    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="SCRIBBLES.nii.gz|DIR",
            help="Label image with strokes and fully labeled slices, or a folder of them.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    point: PointOption = None
    box: BoxOption = None
    world: WorldOption = False
    session: Annotated[
        Path | None,
        typer.Option(
            metavar="LOG.json",
            help="Replay a session saved in the viewer, in place of --prompts.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    unlabeled: Annotated[
        int,
        typer.Option(
            metavar="V",
            help="The value in the prompts that means unlabeled.",
            rich_help_panel=PROMPTS,
        ),
    ] = 0
    background_label: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="The value of background strokes in the prompts; 0 in the mask.",
            show_default="0, unless that means unlabeled",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    fully_labeled: Annotated[
        bool,
        typer.Option(
            "--fully-labeled",
            help="Every slice of the prompts with a label is fully labeled: what is unlabeled "
            "in it is background, as in a segmentation that was drawn in some slices only.",
            rich_help_panel=PROMPTS,
        ),
    ] = False
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="SEG.nii.gz",
            help="A mask to refine, or probabilities with one channel per class, background "
            "first. It stays except near prompts that contradict it, and where they are unsure.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    initial_margin: Annotated[
        float,
        typer.Option(
            metavar="VOXELS",
            min=0,
            help="Voxels of the initial mask nearer than this to another label may change "
            "without a prompt, too; 1 or less: none. For masks that are too small or too large "
            "and whose borders are clear edges in the image: others can get worse.",
            rich_help_panel=PROMPTS,
        ),
    ] = 1.0
    field: FieldOption = None

    @property
    def has_places(self) -> bool:
        """Whether there are points or boxes."""
        return bool(self.point or self.box)

    @property
    def has_prompts(self) -> bool:
        """Whether there are strokes, points or boxes."""
        return self.prompts is not None or self.has_places

    def places(self) -> PlacePrompts:
        """Return points and boxes.

        Raises
        ------
        typer.BadParameter
            When one is written in another way.
        """
        return PlacePrompts.read(
            self.point or (),
            self.box or (),
            world=self.world,
            unlabeled=self.unlabeled,
            background=self.background_label,
        )


@dataclass(frozen=True)
class Trained:
    """A trained segmenter, and how it is used."""

    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="A segmenter of train-segmenter. Alone it makes the mask; with prompts its "
            "probabilities are where they start from. Alone also for a folder or list of images.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    agreement: Annotated[
        bool | None,
        typer.Option(
            "--agreement/--no-agreement",
            help="With --model alone: how far the networks of its folds agree.",
            show_default="agreement",
            rich_help_panel=TRAINED,
        ),
    ] = None
    forest: Annotated[
        bool,
        typer.Option(
            "--forest",
            help="With --model: look at the image at half of its resolution, and again where that "
            "is unsure. Faster for large scans with few edges.",
            rich_help_panel=TRAINED,
        ),
    ] = False
    polish: Annotated[
        bool | None,
        typer.Option(
            "--polish/--no-polish",
            help="With --model alone: let the solver move the borders of the mask along the edges "
            "of the image.",
            show_default="as cross-validation decided (train-segmenter --polish), else not",
            rich_help_panel=TRAINED,
        ),
    ] = None
    largest: Annotated[
        bool | None,
        typer.Option(
            "--largest/--all-components",
            help="With --model alone: keep only the largest connected component of every class, "
            "or all of them.",
            show_default="as cross-validation decided for each class, else all",
            rich_help_panel=TRAINED,
        ),
    ] = None
    features: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY",
            help="With --model: import path of its pre-trained features, for a model that was "
            "trained with some. Its code is run.",
            show_default=False,
            rich_help_panel=TRAINED,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --model and many images: a Dask scheduler such as tcp://host:8786, whose "
            "workers see the same files.",
            show_default="this machine",
            rich_help_panel=TRAINED,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --model and many images: processes on this machine.",
            show_default="1",
            rich_help_panel=TRAINED,
        ),
    ] = None

    @property
    def for_many(self) -> bool:
        """Whether there are options that are for many images only."""
        return bool(self.scheduler or self.workers)

    def load(self) -> Segmenter:
        """Read the segmenter; there must be one."""
        from napari_medgs.learning import load_segmenter

        assert self.model is not None
        return load_segmenter(self.model, self.features)

    def check(self, prompting: Prompting) -> None:
        """Refuse options that do not go together.

        Raises
        ------
        typer.BadParameter
            Saying what an option is for.
        """
        if self.model is not None and (
            prompting.session is not None or prompting.initial is not None
        ):
            raise typer.BadParameter("--model takes the place of --initial and --session.")
        for option, value in (
            ("agreement", self.agreement),
            ("forest", self.forest or None),
            ("polish", self.polish),
            ("largest", self.largest),
        ):
            if value is not None and (self.model is None or prompting.has_prompts):
                raise typer.BadParameter(f"--{option} is for --model without prompts.")
        if self.features and self.model is None:
            raise typer.BadParameter("--features is for --model.")


@dataclass(frozen=True)
class MoreOutputs:
    """What is written beside the mask."""

    probability: Annotated[
        Path | None,
        typer.Option(
            metavar="P.nii.gz",
            help="Also write the probability of every class, background first.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            metavar="U.nii.gz",
            help="Also write the probability that each voxel's label is wrong.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also say what every contrast contributes to every class: Shapley values of "
            "the Dice with the answer from all contrasts. Solves once for every subset of them.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False
    ranking: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=NAMES",
            help="With --explain: the contrasts as a reader ranks them for a class, separated by "
            "commas, the most important first. Can be given once for each class.",
            show_default=False,
            rich_help_panel=OUTPUTS,
        ),
    ] = None

    @property
    def any(self) -> bool:
        """Whether anything is wanted beside the mask."""
        return bool(self.probability or self.uncertainty or self.explain)

    @property
    def files(self) -> Mapping[str, Path | None]:
        """The files by option."""
        return {"--probability": self.probability, "--uncertainty": self.uncertainty}

    def explanation(self) -> Explain | None:
        """Return which contributions of contrasts are wanted, None for none.

        Raises
        ------
        typer.BadParameter
            For a ranking that is not written as it should be.
        """
        return Explain.of_options(self.explain, self.ranking or ())
