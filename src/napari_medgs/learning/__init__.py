"""Segmenters trained on one's own cases: networks, training, files and use."""
