"""Steps that every tier shares, each one pass over a batch."""
