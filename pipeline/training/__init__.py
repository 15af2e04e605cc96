"""From recorded history to weights and the evidence for them; knows no database rows."""
