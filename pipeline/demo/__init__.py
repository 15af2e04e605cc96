"""``forewatch demo``: simulated plant, network and market, and this machine's own telemetry, on a real
broker, watched by the real daemon.
"""
