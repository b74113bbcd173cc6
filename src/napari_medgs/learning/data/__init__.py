"""Training cases: where they are, whether they fit together, patches and augmentation."""
