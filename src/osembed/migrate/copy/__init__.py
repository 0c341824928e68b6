"""Copy documents from one generation of indexes to the next, catch up with changes, compare ids."""
