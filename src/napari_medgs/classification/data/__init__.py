"""Data sets, preprocessing and augmentation."""
