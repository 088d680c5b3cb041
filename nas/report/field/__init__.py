"""The page of a field run."""
