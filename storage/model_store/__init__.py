"""Jobs, model versions, quarantine and the state of monitors."""
