"""Verbs of the decision problems: policies trained and compared, networks placed over servers."""
