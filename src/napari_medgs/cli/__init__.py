"""The command line, ``napari-medgs``; one module per command, nothing heavy imported at start."""

from napari_medgs.cli.app import app, main

__all__ = ["app", "main"]
