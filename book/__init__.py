"""The tools that make the book: they execute its notebooks and keep its address in one place."""
