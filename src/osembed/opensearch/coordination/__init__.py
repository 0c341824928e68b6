"""Coordination between processes: who may work on a collection, who is working on it, and whether it was dropped."""
