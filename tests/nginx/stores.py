"""A folder or a bucket, with what the settings call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Folder:
    """The origin as a folder."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        path.mkdir()
        self.origin = f'{{url: "file://{path}"}}'

    def put(self, key: str, data: bytes) -> None:
        assert self.path is not None
        place = self.path / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


class Bucket:
    """The origin as a bucket."""

    path = None

    def __init__(self, s3: Any) -> None:
        self.s3 = s3
        self.origin = (
            f"{{url: s3://{s3.bucket}, endpoint: {s3.endpoint}, region: us-east-1, access_key: {s3.access_key}, "
            f"secret_key: {s3.secret_key}}}"
        )

    def put(self, key: str, data: bytes) -> None:
        self.s3.client.put_object(
            Bucket=self.s3.bucket,
            Key=key,
            Body=data,
            ContentType="text/html",
            ContentDisposition="inline",
            CacheControl="public",
        )
