"""Which of the four steps of a segmentation comes next. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from napari_medgs.plugin.segment.model import SegmentState


class Step(IntEnum):
    """The steps, in the order of the panel."""

    START = 1
    PAINT = 2
    CHECK = 3
    SAVE = 4

    @property
    def title(self) -> str:
        """The heading."""
        return TITLES[self]


TITLES = {
    Step.START: "Image and start",
    Step.PAINT: "Classes and strokes",
    Step.CHECK: "Check",
    Step.SAVE: "Save",
}


class Action(StrEnum):
    """The buttons that can be the next step."""

    NEW = "new"
    UPDATE = "update"
    SUGGEST = "suggest"
    SAVE = "save"
    NEXT_CASE = "next case"


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes
    ----------
    step : Step
    text : str
        One sentence.
    action : Action or None
        The button that does it; None where it is done on the canvas, or elsewhere.
    """

    step: Step
    text: str
    action: Action | None = None


def next_step(state: SegmentState, *, has_image: bool) -> NextStep:
    """Return what to do next.

    Parameters
    ----------
    state : SegmentState
    has_image : bool
        Whether an image is chosen.

    Examples
    --------
    >>> next_step(SegmentState(), has_image=True).action
    <Action.NEW: 'new'>
    """
    if not has_image:
        return NextStep(Step.START, "Open an image: drop a file or folder on the window.")
    if not state.has_session:
        return NextStep(Step.START, "Press New to begin with the checked image.", Action.NEW)
    if not state.auto_update and state.can_undo and not state.is_current:
        return NextStep(Step.PAINT, "Press Update when the strokes are painted.", Action.UPDATE)
    if state.clicking and not state.volumes_ml:
        return NextStep(Step.PAINT, "Click a part: it belongs to the selected class then.")
    if not state.volumes_ml:
        return NextStep(
            Step.PAINT,
            "Paint a short stroke in each class, and one in the background; or click a part.",
        )
    if state.provisional:
        return NextStep(
            Step.PAINT, "Provisional: paint a stroke in the background, or in another class."
        )
    if state.fills_image and not state.saved:
        return NextStep(
            Step.PAINT,
            "No background is marked: paint a stroke in it, or leave all of the image to classes.",
        )
    if state.saved:
        action = Action.NEXT_CASE if state.has_next_case else None
        more = "open the next case, or go on painting." if action else "paint to go on."
        return NextStep(Step.SAVE, f"Saved: {more}", action)
    if not state.checked:
        return NextStep(
            Step.CHECK, "Scroll through the mask; paint where it is wrong.", Action.SUGGEST
        )
    return NextStep(Step.SAVE, "Save the mask, or paint where it is wrong.", Action.SAVE)
