"""Parts that classifiers share."""
