"""MedMNIST sets."""
