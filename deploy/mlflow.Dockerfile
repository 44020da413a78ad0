# An MLflow server that keeps runs in Postgres and artifacts in an object store. Versions as in constraints.txt.
FROM python:3.12-slim
ARG MLFLOW_VERSION
RUN pip install --no-cache-dir "mlflow==${MLFLOW_VERSION}" psycopg2-binary boto3
CMD ["sh", "-c", "mlflow server --host 0.0.0.0 --port 5000 --backend-store-uri \"$BACKEND_STORE\" --artifacts-destination \"$ARTIFACTS\" --allowed-hosts \"$ALLOWED_HOSTS\""]
