"""Content of messages: payload, text, HTML, chart."""
