"""What listens: gRPC and REST, who is let in, and what is made of a request."""
