"""What the user prefers, from napari's Preferences where it has pages of plugins. No Qt.

The settings are declared in ``napari.yaml`` under ``configurations``; napari 0.9 or newer shows
them and keeps them. Older versions use the defaults.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("napari_medgs")
PLUGIN, GROUP = "napari-medgs", "medgs"


@dataclass(frozen=True)
class Preferences:
    """Defaults of the widgets.

    Attributes
    ----------
    quality : str
        Of a fit: "fast", "balanced" or "exact".
    backend : str
        Rendering engine.
    threads : int
        CPU threads; 0 stands for all.
    cache_folder : str
        Where sessions are kept; empty for the user's cache folder.
    """

    quality: str = "balanced"
    backend: str = "auto"
    threads: int = 0
    cache_folder: str = ""


def stored_settings() -> Any | None:
    """Return napari's object of this plugin's settings, or None where it keeps none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # before 0.9
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), GROUP)
    except (KeyError, AttributeError):  # the manifest is not registered
        return None


def preferences() -> Preferences:
    """Return what the user prefers; a value that cannot be used gives way to its default."""
    stored, default = stored_settings(), Preferences()
    if stored is None:
        return default
    threads = getattr(stored, "threads", 0)
    return Preferences(
        str(getattr(stored, "quality", default.quality)),
        str(getattr(stored, "backend", default.backend)),
        int(threads) if isinstance(threads, int) and threads > 0 else 0,
        str(getattr(stored, "cache_folder", "")).strip(),
    )


def cache_folder() -> Path:
    """Return the folder that holds what can be made again: sessions and their fields.

    One that does not exist and cannot be made gives way to the user's cache folder.
    """
    import pooch

    chosen = preferences().cache_folder
    if chosen:
        folder = Path(chosen).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            LOGGER.warning("the cache folder %s cannot be used: %s", folder, error)
        else:
            return folder
    return Path(pooch.os_cache("napari-medgs"))
