"""The Learn widget: train a segmenter on one's own cases."""
