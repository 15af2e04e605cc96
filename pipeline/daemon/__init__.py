"""The always-on process."""
