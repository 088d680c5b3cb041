"""Verbs that play or write a link: emulated, shaped live (one device, or streams from several), recorded."""
