"""Which trained segmenter the widgets use: the one that was trained or chosen last. No Qt."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal


class SegmenterChoice:
    """The file of a segmenter; its changes are told to whoever listens."""

    changed = Signal(object)

    def __init__(self) -> None:
        self._path: Path | None = None

    @property
    def path(self) -> Path | None:
        """The file, or None while there is none or it was removed."""
        return self._path if self._path is not None and self._path.is_file() else None

    def choose(self, path: Path) -> None:
        """Use a file from now on."""
        self._path = path
        self.changed.emit(path)


CHOICE = SegmenterChoice()
