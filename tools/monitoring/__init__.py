"""Generator of the Prometheus rules and Grafana dashboards below ``deploy/``."""
