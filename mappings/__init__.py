"""OpenSearch request bodies as plain JSON; read with importlib.resources."""
