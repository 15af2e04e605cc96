"""When and where work runs: scheduler, leases, Dask workers, results."""
