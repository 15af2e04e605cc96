"""Record types, errors and time: the words that every package shares."""
