"""From what the searches chose to trees on disk: fine-tuned, measured, chosen, exported."""
