"""Buckets that anybody can read, and buckets that nobody can, at real S3 servers."""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from gateway.backends import s3_exposure
from gateway.backends.s3_exposure import Exposure, exposed, probe, refuse_public_bucket, sample
from gateway.errors import FileMissing, GatewayError, OriginDown, SettingsError
from gateway.settings import Settings
from gateway.settings_sections import KeySettings, OriginSettings

KEYS = ["ebooks/sea & <sky>.pdf", "masters/a b+ć.wav", "zebra.zip"]


@dataclass
class Shop:
    client: Any
    bucket: str
    origin: OriginSettings

    def allow(self, *actions: str, on: str = "/*", **condition: dict[str, str]) -> None:
        """Let anybody do this to the bucket (on="") or its objects."""
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": ["*"]},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{self.bucket}{on}"],
            **({"Condition": condition} if condition else {}),
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.client.put_bucket_policy(Bucket=self.bucket, Policy=policy)

    def settings(self) -> Settings:
        key = KeySettings(kid="a", alg="HS256", secret=SecretStr("0123456789abcdef" * 2), use="sign")
        return Settings(origin=self.origin, redis="redis://127.0.0.1:1/0", keys=(key,), issuer="shop")


def opened(server: Any) -> Shop:
    """A bucket of its own at one of the servers of tests/conftest.py."""
    name = f"shop-{uuid.uuid4().hex[:12]}"
    server.client.create_bucket(Bucket=name)
    for key in KEYS:
        server.client.put_object(Bucket=name, Key=f"files/{key}", Body=b"bytes")
    server.client.put_object(Bucket=name, Key="files/a-folder/", Body=b"")
    origin = OriginSettings(
        url=f"s3://{name}/files",
        endpoint=server.endpoint,
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
    )
    return Shop(server.client, name, origin)


@pytest.fixture(params=["moto_s3", "given_s3"])
def shop(request: pytest.FixtureRequest) -> Shop:
    return opened(request.getfixturevalue(request.param))


@pytest.fixture
def real_shop(given_s3: Any) -> Shop:
    """At a server that enforces policies, which moto does only for some requests."""
    return opened(given_s3)


async def test_a_signed_list_names_objects_that_hold_bytes(shop: Shop) -> None:
    assert await sample(shop.origin) == KEYS
    assert await sample(shop.origin, 2) == [KEYS[0], KEYS[2]]
    assert await sample(shop.origin, 1) == [KEYS[0]]


async def test_a_private_bucket_is_proven_private(real_shop: Shop) -> None:
    assert await exposed(real_shop.origin) is None
    found = await probe(real_shop.origin, KEYS)
    assert (found.open, found.objects_refused, found.lists_refused > 0, found.failure) == ((), 3, True, "")
    assert found.ahead is not None
    assert abs(found.ahead) <= found.uncertain + 1
    await refuse_public_bucket(real_shop.settings())


async def test_one_object_with_a_public_acl(shop: Shop) -> None:
    shop.client.put_object_acl(Bucket=shop.bucket, Key=f"files/{KEYS[1]}", ACL="public-read")
    found = await probe(shop.origin, KEYS, lists=False)
    assert (found.open, found.objects_refused) == ((f"read {KEYS[1]}",), 2)


@pytest.mark.parametrize(
    ("actions", "on", "said"),
    [
        (["s3:GetObject"], "/*", f"read {KEYS[0]}, read {KEYS[1]} and read {KEYS[2]}"),
        (["s3:GetObject"], "/files/zebra.zip", f"read {KEYS[2]}"),
        (["s3:GetObjectVersion"], "/*", f"read {KEYS[0]}, read {KEYS[1]} and read {KEYS[2]}"),
        (["s3:ListBucket"], "", "list the bucket"),
        (["s3:ListBucketVersions"], "", "list the bucket"),
    ],
)
async def test_a_policy_that_lets_anybody_in(real_shop: Shop, actions: list[str], on: str, said: str) -> None:
    real_shop.allow(*actions, on=on)
    text = await exposed(real_shop.origin)
    assert text is not None
    assert text.startswith(f"anyone can {said} without a link; remove the bucket policy or ACL")
    with pytest.raises(SettingsError, match="origin: anyone can "):
        await refuse_public_bucket(real_shop.settings())


async def test_a_list_that_is_open_for_our_folder_only(real_shop: Shop) -> None:
    real_shop.allow("s3:ListBucket", on="", StringEquals={"s3:prefix": "files/"})
    assert str(await exposed(real_shop.origin)).startswith("anyone can list the bucket")


async def test_a_bucket_with_a_public_acl(real_shop: Shop) -> None:
    real_shop.client.put_bucket_acl(Bucket=real_shop.bucket, ACL="public-read")
    assert str(await exposed(real_shop.origin)).startswith("anyone can list the bucket without a link")


@pytest.mark.parametrize(("addressing", "open_to"), [("path", "shop-files.127.0.0.1"), ("virtual", "localhost")])
async def test_the_other_style_of_address_is_tried_too(
    addressing: Literal["path", "virtual"], open_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a proxy that guards one way to the store and forgot the other."""

    async def answer(request: web.Request) -> web.Response:
        if request.host.split(":")[0] == open_to and request.path.endswith("/a.pdf"):
            return web.Response(status=206, body=b"%", headers={"Content-Range": "bytes 0-0/9"})
        return web.Response(status=403)

    server = TestServer(web.Application(), host="127.0.0.1")
    server.app.router.add_get("/{path:.*}", answer)
    await server.start_server()
    host = "127.0.0.1" if addressing == "path" else "localhost"
    origin = OriginSettings(url="s3://shop-files", endpoint=f"http://{host}:{server.port}", addressing=addressing)
    if addressing == "virtual":  # a name of the loopback that needs no resolver
        own = (f"http://127.0.0.1:{server.port}/", f"shop-files.localhost:{server.port}", True)
        bases = s3_exposure._bases(origin)
        monkeypatch.setattr(s3_exposure, "_bases", lambda _: [own, *bases[1:]])
    found = await probe(origin, ["a.pdf"])
    await server.close()
    assert (found.open, found.objects_refused) == (("read a.pdf",), 0)


async def test_keys_that_may_not_list_do_with_known_objects(real_shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    strangers = real_shop.origin.model_copy(update={"secret_key": SecretStr("wrong")})
    assert await exposed(strangers, KEYS[:1]) is None
    with pytest.raises(OriginDown, match="403"):
        await exposed(strangers)
    settings = real_shop.settings().model_copy(update={"origin": strangers})
    with caplog.at_level(logging.WARNING):
        await refuse_public_bucket(settings)
    assert "was not found out" in caplog.text
    assert "X-Amz-" not in caplog.text

    real_shop.allow("s3:ListBucket", on="")
    with pytest.raises(SettingsError):
        await refuse_public_bucket(settings)


async def test_a_bucket_that_is_not_there(real_shop: Shop) -> None:
    gone = real_shop.origin.model_copy(update={"url": "s3://no-such-bucket-at-all"})
    with pytest.raises(FileMissing, match="there is no bucket no-such-bucket-at-all"):
        await sample(gone)
    with pytest.raises(GatewayError, match="there is no bucket"):
        await exposed(gone)


async def test_a_store_that_says_nothing_holds_up_the_start_for_five_seconds_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = OriginSettings(
            url="s3://shop-files",
            endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}",
            access_key=SecretStr("key"),
            secret_key=SecretStr("secret"),
        )
        settings = Shop(None, "", origin).settings()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            await refuse_public_bucket(settings, ["a.pdf"])
        assert time.monotonic() - began < 6
    assert "was not found out" in caplog.text


def test_words() -> None:
    assert Exposure((), 1, 1).text is None
    assert str(Exposure(("list the bucket", "read a"), 0, 0).text).startswith("anyone can list the bucket and read a ")
