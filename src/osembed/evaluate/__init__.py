"""How good the answers are: metrics and their significance on judged queries."""
