"""The life of a model: when it is trained, on what, where, whether it is better, and how it takes over or goes back.

clock, drift, people ─► jobs (rows) ─► runner (a process beside the daemon) ─► Dask worker: data ─► training ─► backtest
                                                                                    │
engine ◄─ watch (between two batches) ◄─ promotions (rows) ◄─ decision ◄─ shadow ◄─ registry (files)
"""
