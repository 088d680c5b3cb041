"""A bundle and its libraries on this machine."""
