"""Code that generators share."""
