"""From an input to documents: read and look, prepare, embed, write; prune what is gone; follow a folder."""
