"""Embed texts. Only this package imports torch and sentence-transformers."""
