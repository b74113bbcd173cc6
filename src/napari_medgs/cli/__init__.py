"""The command line, ``napari-medgs``; one module a command, nothing heavy imported at start."""

from napari_medgs.cli.app import app, main

__all__ = ["app", "main"]
