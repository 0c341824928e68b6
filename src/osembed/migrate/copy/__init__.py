"""From one generation to the next: copying, catching up, comparing ids."""
