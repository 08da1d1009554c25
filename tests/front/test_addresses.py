from __future__ import annotations

import pytest

from gateway.front.addresses import FileAddress, HookAddress, LibraryAddress, LinkAddress, ZipAddress, parse_path
from gateway.policy.links import file_path, link_path, zip_path


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/l/t.o.k", LinkAddress("t.o.k")),
        ("/d/t", FileAddress("t", 1)),
        ("/d/t/12/a%2Fb", FileAddress("t", 12)),
        ("/z/t", ZipAddress("t")),
        ("/z/t/My%20songs.zip", ZipAddress("t")),
        ("/hooks/shop", HookAddress("shop")),
        ("/account", LibraryAddress()),
        *(
            (path, None)
            for path in (
                "/",
                "/l/",
                "/z/",
                "/z//a.zip",
                "/z/t/a/b",
                "/l/t/x",
                "/d/t/0",
                "/x/t",
                "z/t",
                "/account/",
                "account",
            )
        ),
    ],
)
def test_paths(path: str, address: object) -> None:
    assert parse_path(path) == address
    assert "t.o.k" not in repr(parse_path(path))


def test_paths_that_are_made_lead_back() -> None:
    assert zip_path("/p", "t", "My songs.zip") == "/p/z/t/My%20songs.zip"
    assert zip_path("", "t", "..") == "/z/t"
    assert parse_path(zip_path("", "t", "a/b.zip")) == ZipAddress("t")
    assert parse_path(file_path("", "t", 3, "a/b.zip")) == FileAddress("t", 3)
    assert parse_path(link_path("", "t")) == LinkAddress("t")
