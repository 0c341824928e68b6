"""Text to vectors. Only this package imports torch and sentence-transformers; `tokens` needs neither."""
