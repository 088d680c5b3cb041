"""What crosses: codes, frames, protocol, transports."""
