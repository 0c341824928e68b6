"""Search: from a query to a page of results."""
