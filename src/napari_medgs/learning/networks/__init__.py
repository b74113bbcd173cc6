"""Networks of segmentation: encoders and decoders by name."""
