"""osembed's own forward pass, for BERT and related architectures."""
