"""One picture, no network: read, tensor, matte, compose, write."""
