"""Anomaly detection and localisation."""
