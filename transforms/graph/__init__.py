"""From a torch module to a described graph with legal cuts."""
