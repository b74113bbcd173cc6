"""Which keys do what, for binding and for the list in the panel. No Qt, no napari."""

from __future__ import annotations

KEYS = {
    "U": "update now",
    "N": "go to the slice where one more stroke helps most",
    ".": "next class",
    ",": "previous class",
    "K": "lock or unlock the class",
    "H": "show or hide the mask",
}
LAYER_KEYS = {
    "Ctrl+Z": "undo the last step and its effect on the mask",
    "Ctrl+Shift+Z": "redo it",
}
PART_KEYS = {
    "] and [": "while parts are clicked: the next larger or smaller one",
    "Esc": "leave the clicked part as it is; put the scissors away",
}
PAINT_KEYS = {
    "1 … 9": "choose a class",
    "0": "choose the background",
    "E": "erase while it is held, or until it is pressed again",
}
