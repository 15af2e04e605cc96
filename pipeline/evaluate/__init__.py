"""Evaluation on labelled data sets: score, measure, compare and report.

Series are scored on the code path of the daemon (``runner``).
"""
