"""Detection in sequences of discrete events."""
