"""Compares this package with alternatives: runs each one and records how it answers the same questions."""
