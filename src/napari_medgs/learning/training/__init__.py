"""Training of segmenters and what is measured while they train."""
