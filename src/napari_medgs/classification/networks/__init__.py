"""The networks and their input features."""
