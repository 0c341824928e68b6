"""Verification, the quality gate, and repair."""
