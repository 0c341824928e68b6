"""Prepare texts for a model: tokens, chunks, passages."""
