"""Operator graphs over processors: planned exactly where that can be."""
