"""Search quality on judged queries: metrics and their significance."""
