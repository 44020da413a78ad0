"""The web service: HTTP requests, batches of several of them, and a page."""
