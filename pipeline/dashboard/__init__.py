"""The dashboard: built pages, and the answers that its pages ask for."""
