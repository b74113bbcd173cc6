"""Interactive medical segmentation with folded Gaussians: headless core and napari plugin."""

__version__ = "0.1.0"
