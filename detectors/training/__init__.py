"""From recorded series to weights (PyTorch)."""
