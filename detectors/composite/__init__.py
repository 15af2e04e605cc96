"""The detector of a tier: stages, scorers and the decision put together."""
