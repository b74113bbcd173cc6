"""What napari makes when it is first asked for it, made beforehand in a thread. No Qt.

Each of these takes the main thread some tenths of a second, in which the window does not answer.
"""

from __future__ import annotations

import importlib
from typing import Any


def build_units() -> None:
    """Give pint's application registry its table of units, which it reads when first used.

    napari asks it for the units of every layer. The table is made apart and put in its place
    when complete: whoever asks meanwhile makes one, which then stays.
    """
    pint: Any = importlib.import_module("pint")  # napari's own dependency
    wrapper = pint.get_application_registry()

    def is_empty() -> bool:
        return type(wrapper.get()) is pint.LazyRegistry

    if not is_empty():
        return
    # As pint itself does; "raise" is its own choice for the table that it reads late.
    table = pint.UnitRegistry(on_redefinition="raise")
    if is_empty():
        pint.set_application_registry(table)


def prepare_images() -> None:
    """Make ready what napari needs for its first image."""
    for name in ("scipy.ndimage", "scipy.spatial.transform"):  # of thumbnails, of the camera
        importlib.import_module(name)
    build_units()
