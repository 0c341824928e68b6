"""Files to records: folders, text, JSON lines, tables, each also packed."""
