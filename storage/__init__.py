"""The database and the history files: one module per aggregate, one fenced transaction per batch (see
``positions``).
"""
