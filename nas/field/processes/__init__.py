"""What a field run starts: a server, a shaped link and a device, each in a process of its own."""
