"""REST API: what the command line shows and changes, as JSON."""
