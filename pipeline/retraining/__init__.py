"""The life of a model: what it is trained on, how, whether it is better, and whether it stays."""
