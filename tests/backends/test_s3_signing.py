"""Addresses and signatures: as botocore's own client makes them, letter for letter."""

from __future__ import annotations

import asyncio
import itertools
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import botocore.session
import pytest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from gateway.backends import s3_signing
from gateway.backends.s3_signing import Signer, bucket
from gateway.errors import OriginDown, SettingsError

KEYS = [
    "a/b.pdf",
    "with space+plus.pdf",
    "quote'd (1) * ! ~.pdf",
    "100%2F.pdf",
    "zażółć/\N{FAMILY}.mp3",
    "a//b&c=d?e#f",
]


@pytest.mark.parametrize(
    ("url", "endpoint", "region", "addressing", "address"),
    [
        ("s3://shop", None, "eu-central-1", "auto", "https://shop.s3.eu-central-1.amazonaws.com/k"),
        ("s3://shop/pre/fix/", None, "eu-central-1", "auto", "https://shop.s3.eu-central-1.amazonaws.com/pre/fix/k"),
        ("s3://my.shop", None, "eu-central-1", "auto", "https://s3.eu-central-1.amazonaws.com/my.shop/k"),
        ("s3://shop", None, "cn-north-1", "auto", "https://shop.s3.cn-north-1.amazonaws.com.cn/k"),
        ("s3://shop", None, "eu-central-1", "path", "https://s3.eu-central-1.amazonaws.com/shop/k"),
        ("s3://shop", "http://minio:9000", None, "auto", "http://minio:9000/shop/k"),
        ("s3://shop", "http://minio:9000/", None, "auto", "http://minio:9000/shop/k"),
        ("s3://shop", "https://s3.example", None, "virtual", "https://shop.s3.example/k"),
        ("s3://shop", "http://[::1]:9000", None, "auto", "http://[::1]:9000/shop/k"),
    ],
)
def test_addresses(url, endpoint, region, addressing, address):
    assert bucket(url, endpoint, region, addressing).address("k") == address


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://shop", None),
        ("s3://", None),
        ("s3://a/b?c", None),
        ("s3://user@shop", None),
        ("s3://[shop", None),
        ("s3://shop", "minio:9000"),
        ("s3://shop", "http://"),
        ("s3://shop", "http://user:word@minio"),
        ("s3://shop", "http://minio:port"),
    ],
)
def test_wrong_addresses(url, endpoint):
    with pytest.raises(SettingsError) as error:
        bucket(url, endpoint, "us-east-1", "auto")
    assert "word" not in str(error.value)


def test_half_a_pair_of_keys():
    with pytest.raises(SettingsError):
        Signer(bucket("s3://shop", None, "us-east-1", "auto"), "key", None, None)


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9000"])
async def test_signatures_are_botocores_own(endpoint, monkeypatch):
    now = botocore.auth.get_current_datetime()
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    client = botocore.session.Session().create_client(
        "s3",
        region_name="eu-central-1",
        endpoint_url=endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        aws_session_token="token",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "virtual"}),
    )
    signer = Signer(bucket("s3://shop", endpoint, "eu-central-1", "auto"), "key", "secret", "token")
    for method, key in itertools.product(("GET", "HEAD"), KEYS):
        ours, _ = await signer.address(method, key)
        asked = {"Bucket": "shop", "Key": key} | ({"ChecksumMode": "ENABLED"} if method == "HEAD" else {})
        theirs = client.generate_presigned_url(f"{method.lower()}_object", asked)
        assert str(ours).partition("?")[0] == theirs.partition("?")[0]
        assert parse_qs(urlsplit(str(ours)).query) == parse_qs(urlsplit(theirs).query)
    client.close()


async def test_an_address_is_kept_per_method_and_key_and_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(s3_signing, "_ADDRESSES_MAX", 2)
    signer = Signer(bucket("s3://shop", None, "us-east-1", "auto"), "key", "secret", None)
    asked = [("GET", "a"), ("HEAD", "a"), ("GET", "a"), ("GET", "b"), ("HEAD", "a")]
    assert [(await signer.address(*pair))[1] for pair in asked] == [False, False, True, False, False]


async def test_credentials_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fromenv")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    signer = Signer(bucket("s3://shop", None, "us-east-1", "auto"), None, None, None)
    first, *others = await asyncio.gather(*(signer.address("GET", "a") for _ in range(5)))
    assert "fromenv" in str(first[0])
    assert all(other[0] == first[0] for other in others)


async def test_credentials_that_have_changed_sign_everything_anew(monkeypatch):
    signer = Signer(bucket("s3://shop", None, "us-east-1", "auto"), "key", "secret", None)
    for method in ("GET", "HEAD"):
        await signer.address(method, "a")
    monkeypatch.setattr(signer, "_find_credentials", lambda: ReadOnlyCredentials("renewed", "secret", "token"))
    signer.forget("GET", "a")
    for method in ("GET", "HEAD"):
        url, known = await signer.address(method, "a")
        assert "renewed" in str(url)
        assert not known


async def test_no_credentials_anywhere(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    signer = Signer(bucket("s3://shop", None, "us-east-1", "auto"), None, None, None)
    with pytest.raises(OriginDown, match="no S3 credentials"):
        await signer.address("GET", "a")
