"""The forwards that osembed computes itself, for BERT's relatives."""
