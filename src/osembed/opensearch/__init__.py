"""What osembed knows of an OpenSearch server, beginning with how to reach it."""
