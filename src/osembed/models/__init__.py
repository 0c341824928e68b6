"""Models on disk: their folders, their settings, their identity."""
