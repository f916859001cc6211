"""Merged models, checked before they are called done."""
