"""The methods once more, small enough to read."""
