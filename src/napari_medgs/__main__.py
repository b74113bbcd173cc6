"""``python -m napari_medgs``: the command line."""

from napari_medgs.cli import main

if __name__ == "__main__":
    main()
