"""Thresholds: surprise → alarm. One file each."""
