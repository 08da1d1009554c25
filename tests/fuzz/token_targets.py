"""Tokens: only what was signed is accepted, what is accepted says what was signed, and no refusal quotes a token."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from engine import Target
from mutate import Value

from gateway.policy.keys import KeySet, SigningKey, load_key
from gateway.policy.limits import BY_NAME, LIMIT_MAX
from gateway.policy.model import Claims, Deny
from gateway.policy.tokens import TOKEN_MAX, encode, parse
from gateway.policy.units import parse_duration, parse_rate

ISSUER = "shop.example.com"
OTHER = "another-shop.example.com"
QUOTED = 8
"""So many characters of a token in a row would be a quotation, unless they are words of our own."""
_POLICY = Path(__file__).parents[2] / "gateway" / "policy"
_OUR_WORDS = " ".join([*((_POLICY / f"{name}.py").read_text() for name in ("claims", "tokens", "limits")), *BY_NAME])
_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _signing(kid: str, alg: str, material: str) -> SigningKey:
    key = load_key(kid=kid, alg=alg, use="sign", **{"secret" if alg.startswith("HS") else "private_key": material})
    assert isinstance(key, SigningKey)
    return key


# Made from fixed numbers, so that an input fails again in another process. RSA keys cannot be made so.
SIGNERS = {
    key.kid: key
    for key in (
        _signing("h", "HS256", "a secret of a shop, for tests only, 40 long"),
        _signing("H", "HS512", "another secret of the shop, for tests only, and more than 64 bytes long"),
        _signing("ed", "EdDSA", Ed25519PrivateKey.from_private_bytes(b"e" * 32).private_bytes(*_PEM).decode()),
        _signing("es", "ES256", derive_private_key(4711, SECP256R1()).private_bytes(*_PEM).decode()),
    )
}
KEYS = KeySet([key.verification for key in SIGNERS.values()])
STRANGER = _signing("h", "HS256", "a secret that is not the shop's, at least 32 bytes")

EXAMPLES: tuple[dict[str, Value], ...] = (
    {"iss": ISSUER, "aud": "download-gateway", "exp": 2_000_000_000, "jti": "t-1", "files": ["ebooks/sea.pdf"]},
    {
        "iss": ISSUER,
        "aud": ["download-gateway"],
        "exp": 2_000_000_000,
        "jti": "full",
        "nbf": 1,
        "iat": 2,
        "sub": "customer-11",
        "order": "10001",
        "plan": "standard",
        "tier": "gold",
        "account": True,
        "files": ["a/b.wav", {"key": "ü %/ó.pdf", "name": "Sea.pdf"}, {"url": "https://cdn.example.com/a?b=c"}],
        "ip": ["203.0.113.0/24", "2001:db8::/32", "192.0.2.7"],
        "limits": {"downloads": 5, "networks": 3, "devices": 2, "concurrent": 1, "rate": "2MB/s"},
    },
    {
        "iss": ISSUER,
        "aud": "download-gateway",
        "exp": 0,
        "jti": "x" * 128,
        "files": [{"key": "k"}],
        "unknown": {"a": [1, None, 1.5]},
        "limits": {"valid_after_first": "72h", "rate": 1000},
    },
)
_WORDS = (
    *("iss", "aud", "exp", "jti", "files", "sub", "iat", "nbf", "order", "plan", "tier", "account", "ip", "limits"),
    *("key", "url", "name", "downloads", "networks", "devices", "concurrent", "rate", "valid_after_first"),
    *(ISSUER, OTHER, "download-gateway", "Download-Gateway", "true", "null", "NaN", "-Infinity", "1e400"),
    *("../etc/passwd", "a/./b", "a//b", "%2e%2e/x", "%252e%252e%252f", "..\\x", "https://u@h/", "http://h/", "//h"),
    *("0.0.0.0/0", "::ffff:1.2.3.4/120", "10.0.0.1/8", "10.0.0.0/255.0.0.0", "1.2.3.4%eth0", "{t}", "gw:{0}:", "30d"),
    *(f'"{name}":' for name in ("exp", "jti", "files", "limits", "iss", "aud")),
)
_HEADER_WORDS = (
    *("alg", "kid", "typ", "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "cty", "JWT", "jwt", "at+jwt"),
    *("none", "None", "HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "h", "H", "ed", "es", "../h", "h\x00"),
)


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, signer: SigningKey) -> str:
    message = f"{b64(header)}.{b64(payload)}"
    return f"{message}.{b64(signer.sign(message.encode()))}"


def _written(tree: Value) -> bytes:
    """A tree as JSON; a text as it is, so that what no tree can hold (equal names, broken JSON) is tried as well."""
    text = tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _signer(number: int) -> SigningKey:
    return list(SIGNERS.values())[number % len(SIGNERS)]


def _header(kid: str) -> dict[str, Value]:
    return {"alg": SIGNERS[kid].alg, "kid": kid, "typ": "JWT"}


def quiet(answer: Claims | Deny, token: str) -> None:
    """No refusal holds a piece of the token, nor of what its segments say."""
    if isinstance(answer, Claims) or not answer.message:
        return
    message = answer.message
    own = {message[at : at + QUOTED] for at in range(len(message) - QUOTED + 1)}
    assert not [piece for piece in own if piece in token and piece not in _OUR_WORDS], "the refusal quotes the token"


# --- A token's bytes --------------------------------------------------------------------------------------------------


def _genuine() -> Iterator[tuple[str, Claims]]:
    for kid, key in SIGNERS.items():
        for example in EXAMPLES:
            token = signed(_written(_header(kid)), _written(example), key)
            claims = parse(token, KEYS, ISSUER)
            assert isinstance(claims, Claims)
            yield token, claims


GENUINE = dict(_genuine())
_CLAIMS = {token.rpartition(".")[0]: claims for token, claims in GENUINE.items()}


def _twin(token: str) -> str:
    """The other signature that ECDSA allows: (r, n - s)."""
    message, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    return f"{message}.{b64(raw[:32] + (_P256_ORDER - int.from_bytes(raw[32:], 'big')).to_bytes(32, 'big'))}"


_TWINS = [
    _twin(token) for token in GENUINE if json.loads(urlsafe_b64decode(token.split(".")[0] + "==="))["kid"] == "es"
]
# The last letter of a signature has unused bits: another letter may stand for the same bytes.
_RESPELT = [
    token[:-1] + letter for token in GENUINE for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef" if letter != token[-1]
]
_NONE = f"{b64(_written({'alg': 'none', 'kid': 'h'}))}.{b64(_written(EXAMPLES[0]))}"
FORGED = (
    *(_NONE + ".", _NONE + ".AA", ".".join(["", "", ""]), "a.b.c", "a" * 5000, "é.é.é"),
    signed(_written(_header("h")), _written(EXAMPLES[0]), STRANGER),
)


def check_bytes(token: str) -> str:
    answer = parse(token, KEYS, ISSUER)
    quiet(answer, token)
    if isinstance(answer, Deny):
        return answer.reason.text
    message = token.rpartition(".")[0]
    assert message in _CLAIMS, "what nobody signed was accepted"
    assert answer == _CLAIMS[message], "what was accepted is not what was signed"
    if token not in GENUINE:
        assert json.loads(urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "==="))["alg"] == "ES256", (
            "it has a second spelling"
        )
        return "the same token spelt otherwise"
    return "accepted"


# --- What a genuine signature stands under ----------------------------------------------------------------------------


_GOOD = {_written(each) for each in EXAMPLES}


def check_payload(value: tuple[int, Value]) -> str:
    number, tree = value
    signer, payload = _signer(number), _written(tree)
    token = signed(_written(_header(signer.kid)), payload, signer)
    answer = parse(token, KEYS, ISSUER)
    if isinstance(answer, Deny):
        assert payload not in _GOOD, "a good token was refused"
        quiet(answer, _values(payload))
        return answer.reason.text
    assert len(token) <= TOKEN_MAX
    _says(answer, json.loads(payload.decode(), object_pairs_hook=_distinct))
    try:
        again = encode(answer, signer)
    except ValueError:
        assert len(token) > TOKEN_MAX - 200, "claims that were read cannot be written"  # keys may be escaped shorter
        return "accepted"
    assert parse(again, KEYS, ISSUER) == answer
    assert encode(parse(again, KEYS, ISSUER), signer) == again or signer.alg == "ES256"  # ES256 draws at random
    return "accepted"


def _values(payload: bytes) -> str:
    """The texts of a payload that are not words of the grammar; none of them may be in a refusal."""
    found: list[str] = []

    def gather(value: Value) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                found.append(name)
                gather(member)
        elif isinstance(value, list):
            for member in value:
                gather(member)
        elif isinstance(value, str):
            found.append(value)

    try:
        gather(json.loads(payload.decode()))
    except (ValueError, RecursionError):
        return ""
    return "\n".join(text for text in found if text not in _WORDS)


def _distinct(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    assert len({name for name, _ in pairs}) == len(pairs), "equal names were accepted"
    return dict(pairs)


def _says(claims: Claims, members: dict[str, Value]) -> None:
    """Every claim is read as what it says, and none that is known is passed over."""
    assert members["iss"] == claims.issuer == ISSUER
    assert members["aud"] in ("download-gateway", ["download-gateway"])
    token_id = members["jti"]
    assert isinstance(token_id, str)
    assert claims.token_id == token_id
    assert 1 <= len(token_id) <= 128
    assert all(33 <= ord(letter) <= 126 and letter not in "{}" for letter in token_id)
    for name, read in (("exp", claims.expires_at), ("nbf", claims.not_before), ("iat", claims.issued_at)):
        assert type(members.get(name)) is type(read)
        assert members.get(name) == read
        assert read is None or 0 <= read < 253_402_300_800
    texts = (("sub", claims.customer_id), ("order", claims.order_id), ("plan", claims.plan), ("tier", claims.tier))
    for name, read in texts:
        assert members.get(name) == read
        assert read is None or (
            1 <= len(read) <= 255 and read.strip() == read and read.isprintable() | (not read.isascii())
        )
    assert members.get("account", False) is claims.account
    networks = members.get("ip", [])
    assert isinstance(networks, list)
    assert [ip_network(each) for each in networks] == list(claims.ip)
    limits = members.get("limits", {})
    assert isinstance(limits, dict)
    assert claims.limits.values == tuple(sorted((name, _amount(name, each)) for name, each in limits.items()))
    files = members["files"]
    assert isinstance(files, list)
    assert len(files) == len(claims.files) >= 1
    for written, file in zip(files, claims.files, strict=True):
        entry = {"key": written} if isinstance(written, str) else written
        assert entry == {name: text for name, text in vars_of(file) if text is not None}
        if file.key is not None:
            _stays_inside(file.key)


def vars_of(file: object) -> list[tuple[str, object]]:
    return [(name, getattr(file, name)) for name in ("key", "url", "name")]


def _amount(name: str, written: Value) -> int:
    if isinstance(written, str):
        assert name in ("rate", "valid_after_first")
        written = parse_rate(written) if name == "rate" else parse_duration(written)
    assert type(written) is int
    assert 1 <= written <= LIMIT_MAX
    return written


def _stays_inside(key: str) -> None:
    """However often somebody behind us decodes the key, it never climbs."""
    for _ in range(len(key)):
        parts = key.replace("\\", "/").split("/")
        assert not {".", ".."} & set(parts), "a key climbs out of its folder"
        key = unquote(key)


# --- The header of a genuine signature --------------------------------------------------------------------------------


def check_header(value: tuple[int, Value]) -> str:
    number, tree = value
    signer, header = _signer(number), _written(tree)
    token = signed(header, _written(EXAMPLES[0]), signer)
    answer = parse(token, KEYS, ISSUER)
    quiet(answer, _values(header))
    if isinstance(answer, Deny):
        return answer.reason.text
    members = json.loads(header, object_pairs_hook=_distinct)
    assert (members["kid"], members["alg"]) == (signer.kid, signer.alg), "the header chose the key or the algorithm"
    assert not {"crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c"} & members.keys()
    assert str(members.get("typ", "JWT")).upper() == "JWT"
    return "accepted"


_REFUSALS = ("token.malformed", "token.signature")
TARGETS = (
    Target(
        "token",
        check_bytes,
        (*GENUINE, *_TWINS, *_RESPELT, *FORGED),
        ("..", ".", "=", "==", "-", "_", "A", "+", *FORGED),
        (*_REFUSALS, "accepted", "the same token spelt otherwise"),
    ),
    Target(
        "claims",
        check_payload,
        [(n, each) for each in EXAMPLES for n in range(4)],
        _WORDS,
        ("accepted", "token.claims"),
    ),
    Target(
        "claims as text",
        check_payload,
        [(0, json.dumps(each)) for each in EXAMPLES],
        _WORDS,
        ("accepted", "token.claims", "token.malformed"),
    ),
    Target(
        "header",
        check_header,
        [(n, _header(kid)) for n, kid in enumerate(SIGNERS)],
        _HEADER_WORDS,
        (*_REFUSALS, "accepted"),
    ),
    Target(
        "header as text",
        check_header,
        [(n, json.dumps(_header(kid))) for n, kid in enumerate(SIGNERS)],
        _HEADER_WORDS,
        (*_REFUSALS, "accepted"),
    ),
)
