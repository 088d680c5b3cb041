"""Streams of tasks with deadlines over devices that share one server [Song 2021]."""
