"""Streams of tasks with deadlines over devices that share one server: the model of [Song 2021], without torch."""
