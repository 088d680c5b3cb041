"""What takes a fork: the link's type, a policy, an exit, a battery."""
