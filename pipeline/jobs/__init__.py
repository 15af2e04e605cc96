"""Scheduled work: scheduler, leases, Dask workers and results."""
