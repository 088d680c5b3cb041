"""Streams of tasks for real: a server, shaped links and several devices in processes of their own."""
