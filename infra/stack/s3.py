"""The object store: S3Proxy over a plain folder. Puts with If-None-Match are atomic, which the archive relies on."""

from __future__ import annotations

import httpx

from infra.stack.http import client
from infra.stack.java import jars, java
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState, write_private

HEAP = "192m"
REGION = "us-east-1"
BUCKET = "tidemark"

_PROPERTIES = """\
s3proxy.endpoint={url}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={access_key}
s3proxy.credential={secret_key}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={data}
"""


def s3_url(state: StackState) -> str:
    """Return the store's address."""
    return f"http://{LOOPBACK}:{state.port('s3', 'http')}"


def s3_part(state: StackState) -> Part:
    """Describe the object store."""
    folder = state.part_folder("s3")
    properties = folder / "s3proxy.properties"
    jar = next(jars("s3").glob("*.jar"))

    def prepare() -> None:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        text = _PROPERTIES.format(
            url=s3_url(state),
            access_key=state.secret("s3_access_key"),
            secret_key=state.secret("s3_secret_key"),
            data=data,
        )
        write_private(properties, text)

    return Part(
        name="s3",
        argv=java(heap=HEAP, options=["-XX:+UseSerialGC"], main=["-jar", str(jar), "--properties", str(properties)]),
        env={},
        folder=folder,
        prepare=prepare,
        ports=tuple(state.ports("s3").values()),
        probe=lambda: _probe(state),
        on_ready=lambda: _create_bucket(state),
    )


def _request(state: StackState, method: str, path: str) -> httpx.Response:
    """Send one signed request; botocore signs, without the service models that a whole client would load (40 MB)."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = s3_url(state) + path
    request = AWSRequest(method, url, headers={"host": url.split("/")[2]}, data=b"")
    credentials = Credentials(state.secret("s3_access_key"), state.secret("s3_secret_key"))
    S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
    return client().request(method, url, headers=headers)


def _probe(state: StackState) -> None:
    """List the buckets with the right secret."""
    _request(state, "GET", "/").raise_for_status()


def _create_bucket(state: StackState) -> None:
    if _request(state, "HEAD", f"/{BUCKET}").status_code != 200:
        _request(state, "PUT", f"/{BUCKET}").raise_for_status()
