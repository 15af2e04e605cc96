"""Which model is the champion, and where the files of model versions are."""
