"""The classifier in use: the MLflow model."""
