"""Operator graphs and real networks over processors and servers: planned exactly where that can be."""
