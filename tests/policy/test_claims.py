"""Claims: one strict type each; what is written reads back the same."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from gateway.policy.claims import read_claims, write_claims
from gateway.policy.model import Claims, Deny, FileEntry, Limits
from gateway.policy.reasons import Reason

ISSUER = "shop.example.com"
BASE: dict[str, object] = {
    "iss": ISSUER,
    "aud": "download-gateway",
    "exp": 1_800_000_000,
    "jti": "T-0001",
    "files": ["ebooks/sea.pdf"],
}
REMOVED = object()


def read(**changes: object) -> Claims | Deny:
    payload = {name: value for name, value in {**BASE, **changes}.items() if value is not REMOVED}
    return read_claims(payload, ISSUER)


def test_the_smallest_payload() -> None:
    claims = read()
    assert claims == Claims(ISSUER, "T-0001", 1_800_000_000, (FileEntry("ebooks/sea.pdf"),))
    assert isinstance(claims, Claims)
    assert write_claims(claims) == BASE


def test_the_largest_payload() -> None:
    payload: dict[str, object] = {
        **BASE,
        "sub": "cus_81",
        "iat": 1_700_000_000,
        "nbf": 1_700_000_060,
        "order": "10001",
        "plan": "standard",
        "tier": "gold",
        "account": True,
        "files": [
            "a.pdf",
            {"key": "masters/a.wav", "name": "Sea.wav"},
            {"url": "https://cdn.example.com/x", "name": "X"},
        ],
        "ip": ["203.0.113.0/24", "2001:db8::/32"],
        "limits": {
            "downloads": 5,
            "networks": 3,
            "devices": 2,
            "concurrent": 1,
            "rate": 2_000_000,
            "valid_after_first": 259_200,
        },
    }
    claims = read_claims(payload, ISSUER)
    assert claims == Claims(
        issuer=ISSUER,
        token_id="T-0001",
        expires_at=1_800_000_000,
        files=(
            FileEntry("a.pdf"),
            FileEntry("masters/a.wav", name="Sea.wav"),
            FileEntry(None, "https://cdn.example.com/x", "X"),
        ),
        not_before=1_700_000_060,
        issued_at=1_700_000_000,
        customer_id="cus_81",
        order_id="10001",
        plan="standard",
        tier="gold",
        account=True,
        ip=(IPv4Network("203.0.113.0/24"), IPv6Network("2001:db8::/32")),
        limits=Limits(downloads=5, networks=3, devices=2, concurrent=1, rate=2_000_000, valid_after_first=259_200),
    )
    assert isinstance(claims, Claims)
    assert write_claims(claims) == payload


ACCEPTED: list[tuple[str, object]] = [
    ("aud", ["download-gateway"]),
    ("exp", 0),
    ("exp", 253_402_300_799),
    ("nbf", 0),
    ("account", False),
    ("limits", {}),
    ("limits", {"rate": "2MB/s"}),
    ("limits", {"valid_after_first": "72h"}),
    ("limits", {"downloads": 10**12}),
    ("ip", ["203.0.113.9"]),
    ("ip", ["::1/128"]),
    ("ip", ["0.0.0.0/0"]),
    ("jti", "018f3f6e-7b1c-7cc0-98c5-6f0d3b1d2e4f"),
    ("jti", "order/10001:link+1=~|"),
    ("jti", "x" * 128),
    ("order", "Zamówienie 1/2026"),
    ("sub", "x" * 255),
    ("files", ["x"] * 1000),
    (
        "files",
        [
            "a+b 'c' (d) *!.pdf",
            "żółć/łódź.pdf",
            "\U0001f3b5/\U0001f469\u200d\U0001f3a4.wav",
            "a%2Fb%25.pdf",
            "...",
            "a/..b/.c",
        ],
    ),
    ("files", ["AC\\DC.mp3"]),
    ("files", ["a" * 1024]),
    ("files", [{"key": "a", "name": "With / and \u201cquotes\u201d.pdf"}]),
    ("files", [{"url": "https://cdn.example.com"}]),
    ("files", [{"url": "https://cdn.example.com:8443/a%20b?x=1&y=@2#z"}]),
    # Unknown top-level claims MUST be ignored (RFC 7519 §4), and shops add their own.
    ("scope", {"deep": [1.5, None, True]}),
    ("azp", None),
]


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_accepted(name: str, value: object) -> None:
    claims = read(**{name: value})
    assert isinstance(claims, Claims)
    assert read_claims(write_claims(claims), ISSUER) == claims


def test_spelled_limits_are_numbers() -> None:
    claims = read(limits={"rate": "2MB/s", "valid_after_first": "72h"})
    assert isinstance(claims, Claims)
    assert claims.limits == Limits(rate=2_000_000, valid_after_first=259_200)


def cases(name: str, *values: object) -> list[tuple[str, object]]:
    return [(name, value) for value in values]


WRONG_TEXTS: tuple[object, ...] = (
    "",
    " ",
    " x",
    "x ",
    "a\nb",
    "a\x00",
    "\x7f",
    "\x85x",
    "a\u2028b",
    "\ud800",
    "x" * 256,
    1,
    True,
    None,
    ["x"],
    {},
)
WRONG_TIMES: tuple[object, ...] = (
    -1,
    253_402_300_800,
    2**63,
    10**50,
    1.5,
    1_800_000_000.0,
    1.7e308,
    True,
    False,
    None,
    "1800000000",
    "",
    [1],
    {},
)
WRONG_KEYS: tuple[object, ...] = (
    "",
    "/a",
    "a/",
    "a//b",
    "/",
    ".",
    "..",
    "./a",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "..\\a",
    "a\\..\\b",
    "%2e%2e/a",
    "a/%2E./b",
    "a/%252e%252e/b",
    "..%2fa",
    "a%5c..%5cb",
    "%25252e%25252e/a",
    "https://evil.example/x",
    "a\x00.png",
    "a\nb",
    "a\x7fb",
    "\ud800",
    "a" * 1025,
    "ł" * 513,
    1,
    True,
    None,
    ["a"],
)
WRONG_URLS: tuple[object, ...] = (
    "",
    "http://cdn.example.com/x",
    "HTTPS://cdn.example.com/x",
    "ftp://cdn.example.com/x",
    "//cdn.example.com/x",
    "https:///x",
    "https://",
    "https:cdn.example.com",
    "https://user@cdn.example.com/x",
    "https://user:pw@cdn.example.com/x",
    "https://cdn.example.com@evil.example/",
    "https://cdn.example.com\\@evil.example/",
    "https://cdn.example.com/a b",
    "https://cdn.example.com/a\r\nSet-Cookie: x",
    "https://cdn.example.com/\n",
    "https://cdn.example.com:/x",
    "https://cdn.example.com:x/",
    "https://-cdn.example.com/",
    "https://cdn.example.com./",
    "https://[::1]/",
    "https://żółw.example/",
    "https://cdn.example.com/ż",
    'https://cdn.example.com/"<script>',
    "https://cdn.example.com/" + "x" * 2048,
    "javascript:alert(1)",
    1,
    None,
    ["https://cdn.example.com/x"],
)
WRONG_NETWORKS: tuple[object, ...] = (
    "203.0.113.9/24",
    "2001:db8::1/32",
    "203.0.113.0/33",
    "203.0.113.0/-1",
    "203.0.113.0/255.255.255.0",
    "203.0.113.0/0.0.0.255",
    "203.0.113/24",
    "203.0.113.0/",
    "203.0.113.0/\u0662\u0664",
    " 203.0.113.0/24",
    "203.0.113.0/24\n",
    "fe80::%eth0/64",
    "::ffff:10.0.0.0/104",
    "::ffff:10.0.0.1",
    "010.0.0.0/8",
    "any",
    "",
    1,
    2**32,
    None,
    ["203.0.113.0/24"],
    {"net": "203.0.113.0/24"},
)
WRONG_COUNTS: tuple[object, ...] = (0, -1, True, None, 1.0, 1.5, [1], {}, 10**12 + 1)
WRONG_LIMITS: tuple[object, ...] = (
    None,
    [],
    "5",
    5,
    {"downlods": 5},
    {"downloads": 5, "extra": 1},
    *(
        {name: value}
        for name in ("downloads", "networks", "devices", "concurrent", "rate", "valid_after_first")
        for value in WRONG_COUNTS
    ),
    {"downloads": "5"},
    {"rate": "2MB"},
    {"rate": "-2MB/s"},
    {"rate": "0MB/s"},
    {"rate": "2MB/s "},
    {"rate": "999999TB/s"},
    {"valid_after_first": "72"},
    {"valid_after_first": "0h"},
    {"valid_after_first": "\uff17\uff12h"},
)
REFUSED: list[tuple[str, object]] = [
    *((name, REMOVED) for name in BASE),
    *cases("iss", "", "SHOP.example.com", ISSUER + " ", [ISSUER], None, 1, True, {ISSUER: 1}, "\ud800"),
    *cases("aud", "", "gw", "Download-Gateway", [], ["x"], ["x", "download-gateway"], ["download-gateway"] * 2),
    *cases("aud", None, 1, True, {"download-gateway": 1}, [["download-gateway"]]),
    *((name, value) for name in ("exp", "nbf", "iat") for value in WRONG_TIMES),
    *cases(
        "jti",
        "",
        " ",
        "a b",
        "a\r\nb",
        "{x}T",
        "T}",
        "e\u0301",
        "é",
        "\x7f",
        "x" * 129,
        "\ud800",
        None,
        1,
        True,
        ["T"],
        {},
    ),
    *((name, value) for name in ("sub", "order", "plan", "tier") for value in WRONG_TEXTS),
    *cases("account", 1, 0, "true", None, [True]),
    *cases("files", [], None, "a.pdf", {"key": "a.pdf"}, ["x"] * 1001),
    *cases(
        "files", [{}], [{"name": "x"}], [{"key": "a", "url": "https://cdn.example.com/"}], [{"key": "a", "size": 1}]
    ),
    *cases("files", *([{"key": "a", "name": value}] for value in WRONG_TEXTS)),
    *cases("files", *([value] for value in WRONG_KEYS), *([{"key": value}] for value in WRONG_KEYS)),
    *cases("files", *([{"url": value}] for value in WRONG_URLS)),
    *cases("ip", [], None, "203.0.113.0/24", {}, *([value] for value in WRONG_NETWORKS)),
    *cases("ip", ["203.0.113.0/24", "nonsense"]),
    *cases("limits", *WRONG_LIMITS),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_refused(name: str, value: object) -> None:
    answer = read(**{name: value})
    assert isinstance(answer, Deny)
    assert answer.reason is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_the_sentence_for_ops_never_repeats_a_value(name: str, value: object) -> None:
    answer = read(**{name: value}, marker="unused")
    assert isinstance(answer, Deny)
    message = answer.message or ""
    assert message.isascii()
    assert message.isprintable()
    assert not any(part in message for part in ("evil", "cdn.", "203.0.113.9", "gw", "T-0001", ISSUER))
