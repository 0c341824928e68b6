"""The proof of a migration: verification, the quality gate, repair."""
