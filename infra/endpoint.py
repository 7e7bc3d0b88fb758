"""The deployed endpoint behind the scorer's port: boto3's sagemaker-runtime, whoever answers it."""

from __future__ import annotations

import io
from typing import Any

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from numpy.typing import NDArray

from infra.settings import Settings
from ml.scorer import Scores
from projections.errors import StoreUnavailable

CONTENT_TYPE = "application/x-npy"
MOST_ROWS = 2048  # 2048 rows of some 260 numbers are 2 MB; SageMaker takes requests up to 6 MB


class SageMakerEndpoint:
    """Scores rows through `InvokeEndpoint`."""

    def __init__(self, settings: Settings) -> None:
        config = Config(
            retries={"max_attempts": 8, "mode": "standard"},
            connect_timeout=2,
            read_timeout=30,
            tcp_keepalive=True,
            parameter_validation=False,
        )
        options: dict[str, Any] = {**settings.aws.client_config()}
        if settings.endpoint.url is not None:
            options["endpoint_url"] = settings.endpoint.url
        self._client = boto3.client("sagemaker-runtime", config=config, **options)
        self._name = settings.endpoint.name

    def score(self, rows: NDArray[np.float32]) -> Scores:
        """See `ml.scorer.Endpoint`."""
        parts = [self._invoke(rows[at : at + MOST_ROWS]) for at in range(0, len(rows), MOST_ROWS)]
        found = np.concatenate(parts) if parts else np.zeros((0, 2))
        return Scores(found[:, 0], found[:, 1])

    def _invoke(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        body = io.BytesIO()
        np.save(body, np.ascontiguousarray(rows, np.float32), allow_pickle=False)
        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self._name, ContentType=CONTENT_TYPE, Accept=CONTENT_TYPE, Body=body.getvalue()
            )
            found: NDArray[np.float64] = np.load(io.BytesIO(answer["Body"].read()), allow_pickle=False)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(f"the endpoint {self._name} does not answer: {error}") from error
        return found
