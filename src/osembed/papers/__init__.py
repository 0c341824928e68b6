"""Files to papers: readers, records, words, languages. Knows no model and no server."""
