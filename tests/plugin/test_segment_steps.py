"""Which step of the Segment widget comes next. No viewer."""

import pytest

from napari_medgs.plugin.segment.model import SegmentState
from napari_medgs.plugin.segment.steps import Action, Step, next_step

MASK = {1: 3.5}


@pytest.mark.parametrize(
    ("state", "step", "action"),
    [
        ({}, Step.START, Action.NEW),
        ({"has_session": True}, Step.PAINT, None),
        ({"has_session": True, "auto_update": False}, Step.PAINT, None),
        ({"has_session": True, "auto_update": False, "can_undo": True}, Step.PAINT, Action.UPDATE),
        ({"has_session": True, "volumes_ml": MASK}, Step.CHECK, Action.SUGGEST),
        ({"has_session": True, "volumes_ml": MASK, "checked": True}, Step.SAVE, Action.SAVE),
        ({"has_session": True, "volumes_ml": MASK, "saved": True}, Step.SAVE, None),
        (
            {"has_session": True, "volumes_ml": MASK, "saved": True, "has_next_case": True},
            Step.SAVE,
            Action.NEXT_CASE,
        ),
        (
            {
                "has_session": True, "volumes_ml": MASK, "auto_update": False,
                "can_undo": True, "is_current": True,
            },
            Step.CHECK,
            Action.SUGGEST,
        ),
    ],
)  # fmt: skip
def test_the_next_step_follows_from_the_state(state, step, action):
    found = next_step(SegmentState(**state), has_image=True)
    assert (found.step, found.action) == (step, action)
    assert found.text.endswith(".")


def test_without_an_image_there_is_one_to_open():
    found = next_step(SegmentState(), has_image=False)
    assert (found.step, found.action) == (Step.START, None)
    assert found.text.startswith("Open an image")
