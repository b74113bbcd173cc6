"""Cases that were segmented: lists of classes to begin with, and a folder that keeps results."""
