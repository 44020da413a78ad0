"""From a photo to a prediction, with a classifier from a folder or the registry."""
