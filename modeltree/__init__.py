"""What every other package agrees on: layers, networks, links, profiles, costs, and the model tree. No torch."""
