"""From an exported program to kernels with layouts."""
