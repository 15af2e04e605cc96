"""What a message says: payload, text, HTML, chart."""
