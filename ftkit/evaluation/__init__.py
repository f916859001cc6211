"""What a model answers, how well, and how sure that is."""
