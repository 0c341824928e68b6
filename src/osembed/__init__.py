"""osembed."""
