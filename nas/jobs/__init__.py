"""How long work is run: executors, checkpoints, what machine this is."""
