"""Training of weights on recorded series (PyTorch)."""
