"""What answers: models, the queue in front of them, and the batches that run."""
