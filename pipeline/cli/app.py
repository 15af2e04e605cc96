"""The command line application with all commands."""

from __future__ import annotations

from pipeline.cli.command_table import build_app

app = build_app()
