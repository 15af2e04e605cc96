"""The demonstration: simulated streams and the telemetry of this machine, through a broker and the daemon."""
