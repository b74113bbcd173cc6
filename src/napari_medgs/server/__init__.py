"""Interactive segmentation over HTTP, for clients of the nnInteractive protocol."""
