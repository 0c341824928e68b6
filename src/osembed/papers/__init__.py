"""What people have, and how it becomes papers."""
