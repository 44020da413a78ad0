"""Code that serves all filters."""
