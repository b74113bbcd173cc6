"""The napari plugin: readers, writers, sample data and widgets around the headless core."""
