"""OME-Zarr images and masks: metadata, opening, reading, and reading when shown."""
