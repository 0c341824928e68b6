"""Queries to results."""
