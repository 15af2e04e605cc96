"""One stream from records to verdicts and open anomalies."""
