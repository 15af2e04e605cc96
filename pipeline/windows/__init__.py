"""Event time: reordering, late and duplicate points, gaps, aggregation."""
