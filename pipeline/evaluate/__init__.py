"""``forewatch evaluate``: score a labelled data set by the engine's own path (``run``), measure, compare and
report.
"""
