"""Real networks over a device and servers (`nas place`): hosts, cuts, the pipeline's plan, what is deployed of it."""
