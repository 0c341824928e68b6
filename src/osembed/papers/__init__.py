"""Read files into papers: readers, records, words, languages. Independent of models and servers."""
