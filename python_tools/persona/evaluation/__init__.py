"""Honest evaluation: protocol, metrics with intervals, and the report."""
