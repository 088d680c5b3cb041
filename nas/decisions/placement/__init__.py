"""Blocks over many servers: planners, an environment with its exact optimum, and agents [Li 2023; Tarnawski 2020]."""
