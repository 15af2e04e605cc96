"""Live measurements beside the detector: drift, detection power, forecaster usage."""
