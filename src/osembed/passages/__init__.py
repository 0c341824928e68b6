"""Texts as a model reads them: tokens, chunks, passages."""
