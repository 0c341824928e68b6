"""Blue-green migration: plan → copy → verify → gate → swap, and the way back."""
