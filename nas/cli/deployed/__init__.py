"""Verbs of a device and a server at work: running, serving, looking after both."""
