"""From an input to documents: read, prepare, embed, write; prune removed papers; watch a folder."""
