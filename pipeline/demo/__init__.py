"""The demo: simulated streams and the telemetry of this machine, in a daemon."""
