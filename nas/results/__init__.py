"""What a run directory holds, as values: its folder, the summary, its trees, and the verdict with its wording."""
