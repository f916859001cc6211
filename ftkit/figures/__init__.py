"""Every figure of the book, one function each, in one style."""
