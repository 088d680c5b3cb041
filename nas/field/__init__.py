"""A field run: real processes, real bytes, over a link that follows a recorded trace."""
