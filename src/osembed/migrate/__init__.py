"""Blue-green migration: plan → copy → verify → gate → swap, and rollback."""
