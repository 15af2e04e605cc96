"""Stages shared by all tiers, each one pass over a batch."""
