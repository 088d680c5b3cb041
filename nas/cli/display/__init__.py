"""What a verb shows while it works: progress bars, and the live view of `nas run`."""
