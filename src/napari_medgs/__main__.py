"""``python -m napari_medgs``: the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; ends the process with the exit status."""
    try:
        from napari_medgs.cli import main as run

        run()
    except KeyboardInterrupt:  # while modules are imported; commands explain what was kept
        print("napari-medgs: canceled; nothing was written.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
