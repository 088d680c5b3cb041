"""One inference: along the forks of the tree, what a deadline leaves time for, and the cloud against the rest here."""
