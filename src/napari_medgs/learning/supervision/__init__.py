"""Losses of segmentation, by the logits that they compare."""
