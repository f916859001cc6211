"""Checkers that a reader imports to test an answer."""
