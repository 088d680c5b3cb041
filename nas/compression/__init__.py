"""Every technique tried on every layer: variants distilled, measured, and the predictor over them."""
