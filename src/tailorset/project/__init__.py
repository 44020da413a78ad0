"""The project around the library: params.yaml, dvc.yaml, MLflow, resume folders."""
