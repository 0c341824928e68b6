"""Read files into records: folders, text, JSON lines, tables, also compressed."""
