"""The champion of each stream, and the files of model versions."""
