"""The search problem in plain numbers, and everything that solves it."""
