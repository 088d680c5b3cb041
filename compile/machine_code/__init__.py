"""From kernels to a linked library: memory, code, objects."""
