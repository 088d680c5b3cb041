"""Rules for row-major tensors: matrix products, rows, reductions, movement of data and plain loops."""
