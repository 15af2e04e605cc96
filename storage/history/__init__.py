"""Recorded points as Parquet segments."""
