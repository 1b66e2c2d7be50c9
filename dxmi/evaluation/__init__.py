"""Samples against references: rows, reports, pictures."""
