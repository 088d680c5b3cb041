"""The device's side: torch-free walking of a compiled model tree."""
