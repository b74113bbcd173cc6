"""Training and scores."""
