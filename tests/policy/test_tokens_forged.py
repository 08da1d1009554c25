"""Forged and odd tokens: each is refused, with the right reason, and the refusal tells nothing of the token."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.policy.keys import KeySet, load_key
from gateway.policy.model import Claims, Deny
from gateway.policy.reasons import Reason
from gateway.policy.tokens import parse

ISSUER = "shop.example.com"
SECRET = "a-secret-of-at-least-thirty-two-bytes"
ED = ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
ED_PUBLIC = ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ED_RAW = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
EC_PEM = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
KEYS = KeySet(
    [
        load_key(kid="hs", alg="HS256", secret=SECRET),
        load_key(kid="ed", alg="EdDSA", public_key=ED_PUBLIC.decode()),
        load_key(kid="es", alg="ES256", private_key=EC_PEM),
    ]
)
PAYLOAD = (
    b'{"iss":"shop.example.com","aud":"download-gateway","exp":4102444800,"jti":"T-0001","files":["a.pdf"],'
    b'"limits":{"downloads":3}}'
)
HS = b'{"alg":"HS256","kid":"hs","typ":"JWT"}'
ED_HEAD = b'{"alg":"EdDSA","kid":"ed"}'
ES_HEAD = b'{"alg":"ES256","kid":"es"}'
IDENTITY_POINT = b"\x01" + bytes(31)
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs(header: bytes = HS, payload: bytes = PAYLOAD, secret: bytes = SECRET.encode(), digest: str = "sha256") -> str:
    """A token with these raw bytes, with a good HMAC: what is wrong with it is only what the test made wrong."""
    message = f"{b64(header)}.{b64(payload)}"
    return f"{message}.{b64(hmac.new(secret, message.encode(), digest).digest())}"


def ed(header: bytes, payload: bytes = PAYLOAD) -> str:
    message = f"{b64(header)}.{b64(payload)}"
    return f"{message}.{b64(ED.sign(message.encode()))}"


def es(signature: bytes) -> str:
    """An ES256 token with this raw r || s."""
    return f"{b64(ES_HEAD)}.{b64(PAYLOAD)}.{b64(signature)}"


def es_good() -> str:
    return jwt.api_jws.encode(PAYLOAD, EC, "ES256", {"kid": "es"})


def headed(**members: object) -> str:
    return hs(json.dumps({"alg": "HS256", "kid": "hs", **members}).encode())


def claiming(before: bytes, after: bytes) -> str:
    assert PAYLOAD.count(before) == 1
    return hs(payload=PAYLOAD.replace(before, after))


GOOD = hs()
HEAD, BODY, SIGNATURE = GOOD.split(".")
NONE_HEADS = [json.dumps({"alg": alg, "kid": "hs"}).encode() for alg in ("none", "None", "NONE", "nOnE", "none ", "")]
UNUSED_BITS = SIGNATURE[:-1] + chr(ord(SIGNATURE[-1]) + 1)
OTHER_SECRET = b"another-secret-of-at-least-32-bytes!"
OTHER_DIGITS = "4102444800".translate({ord("0") + digit: 0x0660 + digit for digit in range(10)})
DEEP = b"[" * 1400 + b"]" * 1400
DEEP_OBJECTS = b'{"a":' * 500 + b"1" + b"}" * 500

MALFORMED = [
    ("empty", ""),
    ("dots", ".."),
    ("three-dots", "..."),
    ("one-segment", HEAD),
    ("two-segments", f"{HEAD}.{BODY}"),
    ("four-segments", f"{GOOD}.{SIGNATURE}"),
    ("jwe", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA"),
    ("json-serialization", json.dumps({"payload": BODY, "protected": HEAD, "signature": SIGNATURE})),
    ("no-signature", f"{HEAD}.{BODY}."),
    ("no-payload", f"{HEAD}..{SIGNATURE}"),
    ("no-header", f".{BODY}.{SIGNATURE}"),
    *((f"unsigned-{number}", f"{b64(head)}.{BODY}.") for number, head in enumerate(NONE_HEADS)),
    ("padding", GOOD + "="),
    ("padding-inside", f"{HEAD}=.{BODY}.{SIGNATURE}"),
    ("space-before", " " + GOOD),
    ("space-behind", GOOD + " "),
    ("newline-behind", GOOD + "\n"),
    ("newline-inside", f"{HEAD}.{BODY[:9]}\n{BODY[9:]}.{SIGNATURE}"),
    ("nul-behind", GOOD + "\x00"),
    ("bearer", "Bearer " + GOOD),
    ("standard-alphabet", f"{HEAD}.{BODY}.{'+/' * 21}A"),
    ("unused-bits", f"{HEAD}.{BODY}.{UNUSED_BITS}"),
    ("one-character-too-many", f"{HEAD}.{BODY}.{SIGNATURE}AA"),
    ("fullwidth", GOOD.replace("e", "\uff45", 1)),
    ("lone-surrogate", GOOD + "\ud800"),
    ("percent-encoded-dots", GOOD.replace(".", "%2E")),
    ("too-long", hs(payload=PAYLOAD + b" " * 4096)),
    ("a-megabyte", "A" * 1_000_000),
    ("header-is-a-list", hs(b"[]")),
    ("header-is-text", hs(b'"HS256"')),
    ("header-is-null", hs(b"null")),
    ("header-is-no-json", hs(b"{alg:HS256}")),
    ("header-of-two-objects", hs(HS + HS)),
    ("header-utf16", hs(HS.decode().encode("utf-16"))),
    ("header-bom", hs(b"\xef\xbb\xbf" + HS)),
    ("header-not-utf8", hs(b'{"alg":"HS256","kid":"hs","x":"\xff"}')),
    ("header-duplicate-kid", hs(b'{"alg":"HS256","kid":"ed","kid":"hs"}')),
    ("header-duplicate-alg", hs(b'{"alg":"none","alg":"HS256","kid":"hs"}')),
    ("header-duplicate-escaped", hs(b'{"alg":"none","\\u0061lg":"HS256","kid":"hs"}')),
    ("header-nan", hs(b'{"alg":"HS256","kid":"hs","x":NaN}')),
    ("header-trailing-comma", hs(b'{"alg":"HS256","kid":"hs",}')),
    ("header-comment", hs(b'{"alg":"HS256","kid":"hs"}//')),
    ("typ-other", headed(typ="at+jwt")),
    ("typ-number", headed(typ=1)),
    ("typ-null", headed(typ=None)),
    ("typ-list", headed(typ=["JWT"])),
    ("payload-empty-object-twice", hs(payload=b"{}{}")),
    ("payload-list", hs(payload=b"[" + PAYLOAD + b"]")),
    ("payload-text", hs(payload=b'"x"')),
    ("payload-number", hs(payload=b"1")),
    ("payload-null", hs(payload=b"null")),
    ("payload-no-json", hs(payload=b"iss=shop.example.com")),
    ("payload-not-utf8", claiming(b"a.pdf", b"\xff.pdf")),
    ("payload-overlong-utf8", claiming(b"a.pdf", b"\xc0\xaf.pdf")),
    ("payload-encoded-surrogate", claiming(b"a.pdf", b"\xed\xa0\x80.pdf")),
    ("payload-utf16", hs(payload=PAYLOAD.decode().encode("utf-16"))),
    ("payload-utf16-no-bom", hs(payload=PAYLOAD.decode().encode("utf-16-le"))),
    ("payload-bom", hs(payload=b"\xef\xbb\xbf" + PAYLOAD)),
    ("payload-trailing", hs(payload=PAYLOAD + b"x")),
    ("payload-raw-newline-in-text", claiming(b"a.pdf", b"a\n.pdf")),
    ("payload-nul", hs(payload=PAYLOAD + b"\x00")),
    ("duplicate-claim", claiming(b'"jti"', b'"exp":1,"jti"')),
    ("duplicate-claim-escaped", claiming(b'"jti"', b'"\\u0065xp":9999999999,"jti"')),
    ("duplicate-limit", claiming(b'{"downloads":3}', b'{"downloads":3,"downloads":999}')),
    ("duplicate-in-unknown-claim", claiming(b'"jti"', b'"x":[{"a":1,"a":2}],"jti"')),
    ("exp-nan", claiming(b"4102444800", b"NaN")),
    ("exp-infinity", claiming(b"4102444800", b"Infinity")),
    ("exp-minus-infinity", claiming(b"4102444800", b"-Infinity")),
    ("exp-leading-zero", claiming(b"4102444800", b"04102444800")),
    ("exp-plus", claiming(b"4102444800", b"+4102444800")),
    ("exp-hex", claiming(b"4102444800", b"0xF4865700")),
    ("exp-other-digits", claiming(b"4102444800", OTHER_DIGITS.encode())),
]
UNSIGNED = [
    *((f"none-{number}", hs(head)) for number, head in enumerate(NONE_HEADS)),
    ("alg-missing", hs(b'{"kid":"hs"}')),
    ("alg-null", headed(alg=None)),
    ("alg-true", headed(alg=True)),
    ("alg-list", headed(alg=["HS256", "none"])),
    ("alg-object", headed(alg={"HS256": 1})),
    ("alg-lowercase", headed(alg="hs256")),
    ("alg-hs512", hs(b'{"alg":"HS512","kid":"hs"}', digest="sha512")),
    ("alg-hs1", hs(b'{"alg":"HS1","kid":"hs"}', digest="sha1")),
    ("alg-rs256", headed(alg="RS256")),
    ("kid-missing", hs(b'{"alg":"HS256","typ":"JWT"}')),
    *(
        (f"kid-{kid!r}", headed(kid=kid))
        for kid in ("", "HS", "hs ", "hs\x00", "*", "../../dev/null", "' OR 1=1--", "\ud800")
    ),
    *((f"kid-{kid!r}", headed(kid=kid)) for kid in (None, 0, 1, True, ["hs"], {"hs": 1}, 1.5)),
    ("confusion-ed-pem", hs(b'{"alg":"HS256","kid":"ed"}', secret=ED_PUBLIC)),
    ("confusion-ed-pem-stripped", hs(b'{"alg":"HS256","kid":"ed"}', secret=ED_PUBLIC.strip())),
    ("confusion-ed-raw", hs(b'{"alg":"HS256","kid":"ed"}', secret=ED_RAW)),
    ("confusion-other-way", ed(b'{"alg":"EdDSA","kid":"hs"}')),
    ("wrong-secret", hs(secret=OTHER_SECRET)),
    ("empty-secret", hs(secret=b"")),
    ("key-of-another-kid", ed(ES_HEAD)),
    ("truncated", f"{HEAD}.{BODY}.{b64(b'x' * 16)}"),
    ("one-byte-signature", f"{HEAD}.{BODY}.AA"),
    ("payload-swapped", f"{HEAD}.{b64(PAYLOAD.replace(b'3', b'9'))}.{SIGNATURE}"),
    ("header-swapped", f"{b64(HS + b' ')}.{BODY}.{SIGNATURE}"),
    ("ed-zero", f"{b64(ED_HEAD)}.{BODY}.{b64(bytes(64))}"),
    ("ed-small-order-key-trick", f"{b64(ED_HEAD)}.{BODY}.{b64(IDENTITY_POINT + bytes(32))}"),
    ("es-zero", es(bytes(64))),
    ("es-r0-s1", es(bytes(63) + b"\x01")),
    ("es-r-n-s-n", es(ORDER_OF_P256.to_bytes(32, "big") * 2)),
    ("es-short", es(b"\x01" * 63)),
    ("es-der", es(EC.sign(b"x", ec.ECDSA(SHA256())))),
    ("crit-unknown", headed(crit=["x"], x=1)),
    ("crit-empty", headed(crit=[])),
    ("crit-b64", hs(b'{"alg":"HS256","kid":"hs","b64":true,"crit":["b64"]}')),
    ("b64-false", headed(b64=False)),
    ("zip", headed(zip="DEF")),
    ("enc", headed(enc="A256GCM")),
    *(
        (f"good-signature-{name}", headed(**{name: "https://evil.example/k"}))
        for name in ("jku", "x5u", "x5t", "x5t#S256")
    ),
    ("good-signature-x5c", headed(x5c=["MIIB"])),
    ("jwk-brings-its-own-key", hs(b'{"alg":"HS256","kid":"hs","jwk":{"kty":"oct","k":"AAAA"}}', secret=bytes(3))),
]
CLAIMS = [
    ("aud-missing", claiming(b'"aud":"download-gateway",', b"")),
    ("aud-several", claiming(b'"download-gateway"', b'["x","download-gateway"]')),
    ("iss-other", claiming(b"shop.example.com", b"shop.example.com.evil.example")),
    ("exp-missing", claiming(b'"exp":4102444800,', b"")),
    ("exp-null", claiming(b"4102444800", b"null")),
    ("exp-true", claiming(b"4102444800", b"true")),
    ("exp-text", claiming(b"4102444800", b'"4102444800"')),
    ("exp-text-other-digits", claiming(b"4102444800", f'"{OTHER_DIGITS}"'.encode())),
    ("exp-float", claiming(b"4102444800", b"4102444800.0")),
    ("exp-exponent", claiming(b"4102444800", b"41e8")),
    ("exp-overflow", claiming(b"4102444800", b"1E400")),
    ("exp-negative", claiming(b"4102444800", b"-1")),
    ("exp-10-to-the-50", claiming(b"4102444800", b"1" + b"0" * 50)),
    ("exp-2000-digits", claiming(b"4102444800", b"9" * 2000)),
    ("jti-surrogate", claiming(b"T-0001", b"\\ud800")),
    ("jti-nul", claiming(b"T-0001", b"T\\u0000")),
    ("key-surrogate", claiming(b"a.pdf", b"\\udfff.pdf")),
    ("key-escaped-dots", claiming(b"a.pdf", b"\\u002e\\u002e/a.pdf")),
    ("limit-unknown", claiming(b"downloads", b"download")),
    ("limit-negative", claiming(b":3}", b":-3}")),
    ("limit-zero", claiming(b":3}", b":0}")),
    ("limit-text", claiming(b":3}", b':"3"}')),
    ("limits-null", claiming(b'{"downloads":3}', b"null")),
    ("payload-empty", hs(payload=b"{}")),
]
ACCEPTED = [
    ("as-it-is", GOOD),
    ("es256", es_good()),
    ("eddsa", ed(b'{"alg":"EdDSA","kid":"ed","typ":"JWT"}')),
    ("typ-missing", hs(b'{"alg":"HS256","kid":"hs"}')),
    ("typ-lowercase", headed(typ="jwt")),
    ("header-other-order-and-spaces", hs(b' { "kid" : "hs", "alg" : "HS256" } ')),
    # RFC 7515 §4: header members that are not understood MUST be ignored.
    ("header-unknown-member", headed(cty="x", made_by="shop 2.1", deep={"a": [1]})),
    ("payload-spaces", hs(payload=b" " + PAYLOAD.replace(b",", b" , ") + b"\n")),
    ("unknown-claim", claiming(b'"jti"', b'"scope":{"a":[1.5,1e400,null]},"jti"')),
]


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in ACCEPTED])
def test_accepted(token: str) -> None:
    assert isinstance(parse(token, KEYS, ISSUER), Claims)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(token, reason, id=name)
        for reason, table in (
            (Reason.TOKEN_MALFORMED, MALFORMED),
            (Reason.TOKEN_SIGNATURE, UNSIGNED),
            (Reason.TOKEN_CLAIMS, CLAIMS),
        )
        for name, token in table
    ],
)
def test_refused(token: str, reason: Reason) -> None:
    answer = parse(token, KEYS, ISSUER)
    assert isinstance(answer, Deny)
    assert answer.reason is reason
    assert answer.message is not None
    assert not any(word in answer.message for word in ("evil", "T-0001", "a.pdf", ISSUER, token[:12] or "\n"))


@pytest.mark.parametrize("nested", [DEEP, DEEP_OBJECTS])
def test_deep_nesting_is_an_answer_and_no_exception(nested: bytes) -> None:
    assert isinstance(parse(hs(b'{"alg":"HS256","kid":"hs","x":' + nested[:2000] + b"}"), KEYS, ISSUER), Deny)
    assert isinstance(parse(hs(payload=nested), KEYS, ISSUER), Deny)
    assert isinstance(parse(claiming(b'"a.pdf"', nested), KEYS, ISSUER), Deny)
    assert isinstance(parse(claiming(b'"jti"', b'"x":' + nested + b',"jti"'), KEYS, ISSUER), Claims | Deny)


def test_both_es256_signatures_of_a_token_share_one_counter() -> None:
    token = es_good()
    message, _, signature = token.rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    mirrored = raw[:32] + (ORDER_OF_P256 - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    one, other = parse(token, KEYS, ISSUER), parse(f"{message}.{b64(mirrored)}", KEYS, ISSUER)
    assert isinstance(one, Claims)
    assert isinstance(other, Claims)
    assert one.token_key == other.token_key
    assert one.token_key == hashlib.sha256(b"shop.example.com\x00T-0001").hexdigest()[:32]


def test_pyjwt_alone_lets_some_of_these_through() -> None:
    """The naive verifier: if it ever refuses all of them, this table no longer proves anything."""
    passed = set()
    for name, token in MALFORMED + UNSIGNED + CLAIMS:
        try:
            jwt.decode(token, SECRET, ["HS256"], audience="download-gateway", issuer=ISSUER)
        except (jwt.PyJWTError, UnicodeError):
            continue
        passed.add(name)
    assert {"duplicate-claim-escaped", "exp-missing", "exp-text", "exp-text-other-digits", "exp-10-to-the-50"} <= passed
    assert {"header-duplicate-kid", "kid-missing", "jti-nul", "aud-several", "typ-other", "payload-utf16"} <= passed
