"""Results of streams: anomalies, faults, dead letters, late records, labels."""
