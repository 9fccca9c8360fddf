"""A look into an MLflow database."""


def client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)
