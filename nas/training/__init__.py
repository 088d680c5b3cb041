"""Base networks: prepared, trained, and as teachers."""
