"""Exit, cut and bits as one decision [Niu 2022]."""
