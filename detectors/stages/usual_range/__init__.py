"""The decision by usual ranges; see ``stage``."""
