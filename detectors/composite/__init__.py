"""The composite detector: stages, scorers, threshold and decision of a tier."""
