"""`nas emulate`: every method over recorded links, the link known or estimated."""
