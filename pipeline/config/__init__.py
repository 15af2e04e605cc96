"""The configuration file: models, checks, template and reference."""
