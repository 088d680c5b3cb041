"""What a run directory holds, as values."""
