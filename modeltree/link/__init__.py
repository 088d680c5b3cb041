"""A link over time: traces, scenes, bandwidth types, transfer times, emulation."""
