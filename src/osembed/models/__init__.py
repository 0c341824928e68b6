"""Models on disk: folders, settings, identity."""
