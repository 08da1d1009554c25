"""FolderStore: a key never leads out of the root, and nothing that is no regular file is opened or waited for."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from gateway.backends import files
from gateway.backends.files import FolderStore, nginx_etag, strong_etag
from gateway.errors import FileMissing, OriginChanged, OriginDown, OriginTimeout
from gateway.http.preconditions import http_date
from gateway.policy.model import ByteRange

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"outside")
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "a.pdf").write_bytes(b"inside")
    return shop


@pytest.fixture
async def store(root: Path):
    store = FolderStore(root)
    yield store
    await store.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("link", "target", "key"),
    [
        ("out", "../secret", "out"),
        ("out", "/etc/passwd", "out"),
        ("up", "..", "up/secret"),
        ("abs", "/etc", "abs/passwd"),
        ("in", "a.pdf", "in"),
        ("loop", "loop", "loop"),
        ("proc", "/proc/self/cwd", "proc/README.md"),
    ],
)
async def test_symlinks_are_not_followed(root, store, link, target, key):
    (root / link).symlink_to(target)
    with pytest.raises(FileMissing):
        await store.stat(key)


@pytest.mark.parametrize(
    "key", ["../secret", "x/../a.pdf", "./a.pdf", "x/../../secret", "..", "/a.pdf", "x//a.pdf", "", "\ud800"]
)
async def test_a_key_climbs_nowhere(root, store, key):
    (root / "x").mkdir()
    with pytest.raises(FileMissing):
        await store.stat(key)


async def test_a_compressed_sibling_is_another_file(root, store):
    (root / "a.pdf.gz").write_bytes(b"something else, and longer")
    stored = await store.stat("a.pdf")
    body = await store.open(stored, ByteRange(0, stored.size))
    assert os.read(body.fd, 100) == b"inside"
    await body.aclose()


async def test_the_root_itself_may_be_a_symlink(root, tmp_path):
    (tmp_path / "current").symlink_to(root)
    store = FolderStore(tmp_path / "current")
    assert (await store.stat("a.pdf")).size == 6
    await store.close()


async def test_what_is_no_regular_file_is_missing_and_never_waited_for(root, store):
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    async with asyncio.timeout(2):
        for key in ("folder", "fifo", "socket"):
            with pytest.raises(FileMissing):
                await store.stat(key)
    listener.close()


@pytest.mark.parametrize("key", ["a//b.pdf", "a/", "/a.pdf", "a.pdf/", "x" * 300, "a/" * 3000 + "b"])
async def test_a_file_has_one_name_only(root, store, key):
    (root / "a").mkdir()
    (root / "a" / "b.pdf").write_bytes(b"x")
    with pytest.raises(FileMissing):
        await store.stat(key)


async def test_a_root_that_is_gone_is_down_not_missing(root, tmp_path, store):
    root.rename(tmp_path / "unmounted")
    with pytest.raises(OriginDown):
        await store.stat("a.pdf")
    (tmp_path / "unmounted").rename(root)
    assert (await store.stat("a.pdf")).size == 6


@as_user
async def test_no_permission_is_down(root, store):
    (root / "a.pdf").chmod(0)
    with pytest.raises(OriginDown):
        await store.stat("a.pdf")


async def test_an_error_of_the_disk_is_down(root, store, monkeypatch):
    def broken(path, flags, **_):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(files.os, "open", broken)
    with pytest.raises(OriginDown):
        await store.stat("a.pdf")


async def test_the_etag_follows_size_time_and_inode(root, store):
    path = root / "a.pdf"
    etags = {(await store.stat("a.pdf")).etag}
    assert {(await store.stat("a.pdf", fresh=True)).etag} == etags
    before = path.stat()
    path.write_bytes(b"inside!")
    etags.add((await store.stat("a.pdf", fresh=True)).etag)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    etags.add((await store.stat("a.pdf", fresh=True)).etag)
    beside = root / "b.pdf"
    beside.write_bytes(b"insidE!")
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(path)
    etags.add((await store.stat("a.pdf", fresh=True)).etag)
    assert len(etags) == 4
    assert all(len(etag) == 34 for etag in etags)


async def test_a_file_that_was_replaced_is_never_opened_as_the_old_one(root, store):
    stored = await store.stat("a.pdf")
    (root / "b.pdf").write_bytes(b"INSIDE")
    (root / "b.pdf").replace(root / "a.pdf")
    with pytest.raises(OriginChanged):
        await store.open(stored, ByteRange(0, 6))


async def test_no_descriptor_is_left_open(root, store):
    (root / "fifo").symlink_to("a.pdf")
    (root / "x" / "y").mkdir(parents=True)
    (root / "x" / "y" / "b.pdf").touch()
    stored = await store.stat("a.pdf")
    before = open_descriptors()
    for _ in range(20):
        await (await store.open(stored, ByteRange(0, 6))).aclose()
        await store.stat("a.pdf", fresh=True)
        await store.stat("x/y/b.pdf", fresh=True)
        for key in ("none", "none/none", "a.pdf/none", "fifo"):
            with pytest.raises(FileMissing):
                await store.stat(key, fresh=True)
        with pytest.raises(OriginChanged):
            await store.open(stored, ByteRange(0, 7))
    assert open_descriptors() == before


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
async def test_a_disk_that_hangs_is_left_and_what_it_opens_late_is_closed(root, monkeypatch, leave):
    store = FolderStore(root, timeout=0.05 if leave == "timeout" else 10)
    stored = await store.stat("a.pdf")
    before = open_descriptors()
    hang = threading.Event()
    really = files._open

    def slowly(root, key):
        hang.wait(5)
        return really(root, key)

    monkeypatch.setattr(files, "_open", slowly)
    task = asyncio.create_task(store.open(stored, ByteRange(0, 6)))
    await asyncio.sleep(0.01)
    if leave == "cancel":
        task.cancel()
    with pytest.raises(asyncio.CancelledError if leave == "cancel" else OriginTimeout):
        await task
    hang.set()
    await store.close()
    for thread in store._pool._threads:
        await asyncio.to_thread(thread.join, 5)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert open_descriptors() == before


NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MOMENTS = (0, 1, 999_999_999, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 999_999_999, (2**32 + 5) * 10**9)
"""Times of change in nanoseconds."""
SIZES = (0, 1, 255, 65_536, 5_000_000_000)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a real nginx serves it."""
    if NGINX is None:
        pytest.skip("nginx is not on this machine")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; root {folder}/files; }} }}\n"
    )
    command = [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "nginx has ended"
                assert time.monotonic() < until, "nginx does not listen"
                time.sleep(0.02)
        yield folder / "files", f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def test_behind_nginx_a_file_has_the_etag_and_the_time_that_nginx_gives_it(nginx) -> None:
    root, address = nginx
    store = FolderStore(root, etag=nginx_etag)
    etags = set()
    async with ClientSession() as client:
        for moment, size in itertools.product(MOMENTS, SIZES):
            path = root / f"{moment}-{size}"
            path.touch()
            os.truncate(path, size)
            os.utime(path, ns=(moment, moment))
            stored = await store.stat(path.name)
            async with client.head(f"{address}/{path.name}") as answer:
                assert answer.status == 200
                told = (answer.headers["ETag"], int(answer.headers["Content-Length"]), answer.headers["Last-Modified"])
            assert told == (stored.etag, stored.size, http_date(stored.last_modified)), path.name
            etags.add(stored.etag)
            headers = {"If-None-Match": stored.etag}
            async with client.get(f"{address}/{path.name}", headers=headers) as answer:
                assert answer.status == 304
    await store.close()
    assert len(etags) == len({moment // 10**9 for moment in MOMENTS}) * len(SIZES)


def test_by_itself_a_file_has_an_etag_that_tells_more(root: Path) -> None:
    """A file that was moved into the place of another, with its second and size: nginx's own cannot tell it."""
    before = (root / "a.pdf").stat()
    (root / "b").write_bytes(b"insidE")
    os.utime(root / "b", ns=(before.st_mtime_ns, before.st_mtime_ns))
    after = (root / "b").replace(root / "a.pdf").stat()
    assert strong_etag(before) != strong_etag(after)
    assert nginx_etag(before) == nginx_etag(after)
