"""Training: from recorded history to weights and evidence, without a database."""
