"""State that an earlier version stored, as requests that make it anew on any OpenSearch node."""
