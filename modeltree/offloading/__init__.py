"""Exit, cut and bits: a tree's leaves as actions and the exact best [Niu 2022]."""
