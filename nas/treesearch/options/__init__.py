"""What may be chosen at every unit and at every place of a network, and what it costs: the parts of a space."""
