"""Which Gaussians are pruned or merged."""
