"""Shared by all formats: the images to export, the run that resumes, files, and the description beside them."""
