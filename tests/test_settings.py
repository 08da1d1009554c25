from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.document import Mistakes, plain
from gateway.errors import SettingsError
from gateway.settings import Settings, load, notes, unsupported
from gateway.settings_file import parse
from gateway.settings_values import Listen

SECRET = "0123456789abcdef0123456789abcdef"
MINIMUM = {
    "origin": "{url: s3://shop-files}",
    "redis": "redis://127.0.0.1:6379/0",
    "keys": f"[{{kid: a, alg: HS256, secret: {SECRET}, use: sign}}]",
    "issuer": "shop.example.com",
}
DOCS = (Path(__file__).parents[1] / "docs/settings.md").read_text()


def written(folder: Path, text: str = "", **settings: str) -> Path:
    path = folder / "gateway.yaml"
    lines = [f"{name}: {value}" for name, value in {**MINIMUM, **settings}.items() if value != "-"]
    path.write_text("\n".join([text, *lines]).lstrip("\n") + "\n")
    return path


def mistakes(path: Path | None, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_the_minimum_and_its_defaults(tmp_path: Path) -> None:
    settings = load(written(tmp_path), {})
    assert settings.listen == Listen("0.0.0.0", 8080)  # noqa: S104  compared with, not bound
    assert settings.management.listen == Listen("127.0.0.1", 8081)
    assert settings.base_url == "http://localhost:8080"
    assert (settings.counting.resume_window, settings.counting.repeat_window) == (86_400, 60)
    assert (settings.counting.free_below, settings.counting.lease) == (65_536, 10)
    assert (settings.events.keep, settings.drain, settings.shards) == (90 * 86_400, 30, 1)
    assert settings.when_redis_is_down == "deny"
    assert 1 <= settings.workers <= 4
    assert settings.key_set().signing is not None
    assert unsupported(settings) == []
    assert [line.partition(":")[0] for line in notes(settings)] == ["journal"]


def test_everything_at_once(tmp_path: Path) -> None:
    settings = load(
        written(
            tmp_path,
            listen="'[::]:443'",
            tls="{certificate: a.pem, key: b.pem}",
            public_url="https://dl.example.com/files/",
            management="{listen: 127.0.0.1:0, token: ${MANAGEMENT}}",
            origin="{url: s3://shop-files/a, endpoint: http://minio:9000, access_key: a, secret_key: b}",
            shards="64",
            rules="rules/none.yaml",
            geo="{city: a.mmdb}",
            trusted_proxies="[10.0.0.0/8, 2001:db8::/48, 192.0.2.1]",
            external_hosts="[CDN.example.com]",
            counting="{free_below: 0, resume_window: 1h}",
            when_redis_is_down="allow",
            journal="{path: var/journal}",
            cache="{path: var/cache, size: 20GB}",
            workers="3",
        ),
        {"MANAGEMENT": "secret"},
    )
    assert settings.base_url == "https://dl.example.com/files"
    assert settings.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "2001:db8::/48", "192.0.2.1/32")))
    assert settings.external_hosts == ("cdn.example.com",)
    assert settings.cache is not None
    assert settings.cache.size == 20 * 10**9
    assert settings.management.token is not None
    assert settings.management.token.get_secret_value() == "secret"
    assert [line.partition(": is")[0] for line in unsupported(settings)] == ["cache"]
    assert [line.partition(":")[0] for line in notes(settings)] == ["when_redis_is_down"]
    assert settings.journal is not None
    assert (settings.journal.keep, settings.journal.size) == (86_400, 10**9)


def test_where_bytes_lie_is_told_for_a_secret_only(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"doors.nginx.redirect needs doors.secret"):
        load(written(tmp_path, doors="{nginx: {redirect: /_gateway/}}"), {})
    with pytest.raises(SettingsError, match=r"doors.secret: is no secret of 16 to 128"):
        load(written(tmp_path, doors="{secret: short}"), {})
    secret = "{secret: 0123456789abcdef0, nginx: {redirect: /_gateway/}}"
    alone = notes(load(written(tmp_path, doors=secret), {}))
    assert [line for line in alone if line.startswith("doors.secret: is set and trusted_proxies is empty")]
    behind = notes(load(written(tmp_path, doors=secret, trusted_proxies="[127.0.0.1/32]"), {}))
    assert not [line for line in behind if line.startswith("doors")]


def test_what_is_required_is_asked_for_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert [line.partition(" is required;")[0] for line in mistakes(path)] == [
        "1: issuer:",
        "1: keys:",
        "1: origin:",
        "1: redis:",
    ]


HANDOVER = f"{{login_url: 'https://x.example/a', issuer: x, secret: {SECRET}}}"
OIDC = "{issuer: 'https://accounts.example.com', client_id: a}"

WRONG = [
    ("listen", "8080", "is no address to listen on; write host:port, like 0.0.0.0:8080 or [::]:8080"),
    ("listen", "0.0.0.0:65536", "is no address to listen on; write host:port"),
    ("listen", "'::1:8080'", "is no address to listen on; write an IPv6 address in brackets"),
    ("listen", "a b:80", "has a host that is neither a name nor an address"),
    ("listen", "127.0.0.1:8081", "are both 127.0.0.1:8081; give them different ports"),
    ("public_url", "dl.example.com", "has no http:// or https:// in front; write it like https://dl.example.com"),
    ("public_url", "https://user:hunter2@dl.example.com", "has a user name, a ? or a # in it"),
    ("public_url", "https:///x", "has no host name"),
    ("public_url", "https://dl.example.com:x", "is no address"),
    ("origin", "{url: ftp://x}", "url has an unknown scheme; write s3://bucket/prefix or file:///folder"),
    ("origin", "{url: s3://}", "url names no bucket; write it like s3://shop-files"),
    ("origin", "{url: file://srv/files}", "url names no folder; write an absolute one with three slashes"),
    ("origin", "{url: file:///}", "url names no folder"),
    ("origin", "{url: file:///srv, region: x}", "is a folder, which has no region; remove it"),
    ("origin", "{url: s3://abc, access_key: x}", "has only one of access_key and secret_key"),
    ("origin", "{url: s3://abc, endpoint: minio:9000}", "has no http:// or https:// in front"),
    ("origin", "{url: s3://abc, endpoit: http://minio:9000}", "endpoit: is no setting; did you mean endpoint?"),
    ("origin", "{url: s3://abc, connect_timeout: 0s}", "is out of range; write more than 0"),
    ("origin", "s3://shop-files", "is no section; write `name: value` lines under it"),
    ("rollback", "{factor: 3}", "rollback has no rules to watch; set rules, or remove it"),
    ("rollback", "{factor: three}", "is no number; write one like 2.5"),
    ("rollback", "{factor: nan}", "is no number; write one like 2.5"),
    ("rollback", "{factor: 1}", "is out of range; write more than 1"),
    ("rollback", "{within: 2d}", "is out of range; write at most 86400"),
    ("rollback", "{least: 9}", "is out of range; write at least 10"),
    ("redis", "reddis://127.0.0.1", "did you mean redis://?"),
    ("redis", "http://127.0.0.1", "does not start with redis:// rediss://"),
    ("redis", "redis://", "has no host name; write it like redis://127.0.0.1:6379/0"),
    ("redis", "redis://:hunter2@", "has no host name"),
    ("redis", "embedded://var/redis", "has no absolute path; write embedded:///path, with three slashes"),
    ("redis", "[a]", "is no text"),
    ("shards", "many", "is no whole number"),
    ("shards", "0", "is out of range; write at least 1"),
    ("shards", "99999999999999999999999999", "is out of range"),
    ("keys", "[]", "is empty"),
    ("keys", "{kid: a}", "is no list"),
    ("keys", "[{kid: a, alg: HS25, secret: x}]", "alg is one of HS256"),
    ("keys", "[{kid: a, alg: HS256, secret: hunter2}]", "32 bytes or more"),
    ("keys", f"[{{kid: a, alg: none, secret: {SECRET}}}]", "alg is one of HS256"),
    ("keys", "[{kid: a, alg: EdDSA, private_key: hunter2, use: sign}]", "no readable PEM"),
    ("keys", f"[{{kid: a, alg: HS256, secret: {SECRET}, use: both}}]", "write 'sign' or 'verify'"),
    ("keys", "[{}]".format(", ".join([f"{{kid: a, alg: HS256, secret: {SECRET}}}"] * 2)), "is there twice"),
    ("issuer", "", "has no value; give it one or remove the line"),
    ("issuer", "''", "is empty; give it a value; for example shop.example.com"),
    ("issuer", "[a]", "is not one single text"),
    ("trusted_proxies", "10.0.0.0/8", "is no list; write [a, b] or one `- a` a line"),
    ("trusted_proxies", "[10.0.0.1/8]", "trusted_proxies[0]: has host bits set; write 10.0.0.0/8"),
    ("trusted_proxies", "['2001:db8::1/32']", "has host bits set; write 2001:db8::/32"),
    ("trusted_proxies", "['::ffff:10.0.0.0/104']", "is an IPv4 network written as IPv6; write 10.0.0.0/8"),
    ("trusted_proxies", "[0.0.0.0/0]", "trusts every client's headers"),
    ("trusted_proxies", "[nginx]", "is no network; write an address and a prefix length, like 10.0.0.0/8"),
    ("trusted_proxies", "[~]", "trusted_proxies[0]: has no value"),
    ("external_hosts", "['https://cdn.example.com']", "is no host name; write only the name"),
    ("counting", "{resume_window: 90}", "resume_window: is no duration; write a number and a unit"),
    ("counting", "{resume_window: 1s}", "repeat_window is longer than resume_window"),
    ("counting", "{free_below: 64kb}", "free_below: is no size; write a number and a unit"),
    ("counting", "{lease: 1s}", "is out of range; write at least 2"),
    ("drain", "{}", "is no duration; is no text"),
    ("when_redis_is_down", "maybe", "write 'deny' or 'allow'"),
    ("tls", "{certificate: a.pem}", "tls.key: is required"),
    ("geo", "[]", "is no section"),
    ("cache", "{path: x}", "cache.size: is required"),
    (
        "doors",
        "{nginx: {waive: [downloads]}}",
        "downloads is kept by the door nginx, so it cannot be waived; write some",
    ),
    ("doors", "{nginx: {waive: [speed]}}", "speed is no limit; write some of concurrent, rate, or nothing"),
    ("doors", "{mitm: {waive: [rate, concurrent]}}", "concurrent is kept by the door mitm, so it cannot be waived"),
    ("doors", "{auth: {waive: rate}}", "doors.auth.waive: is no list"),
    (
        "doors",
        "{http: {waive: [rate]}}",
        "doors.http: is no setting; remove it, or write one of secret, mitm, nginx, auth",
    ),
    ("doors", "{mitm: {redirect: /x/}}", "doors.mitm.redirect: is no setting"),
    *(
        (
            "doors",
            f"{{nginx: {{redirect: '{path}'}}}}",
            "is no internal location; write one of letters, digits, - and _",
        )
        for path in ("_gateway", "/_gateway", "/", "//", "/a b/", "/../", "/a;b/", '/a"b/', "http://x/")
    ),
    ("accounts", f"{{secret: {SECRET}}}", "has to have one way to sign in; write oidc: {…} or handover: {…}"),
    (
        "accounts",
        f"{{secret: {SECRET}, oidc: {OIDC}, handover: {HANDOVER}}}",
        "has two ways to sign in; take out oidc or handover",
    ),
    ("accounts", f"{{secret: hunter2, oidc: {OIDC}}}", "is shorter than 32 characters; make one: openssl rand -hex 32"),
    ("accounts", f"{{secret: {SECRET}, oidc: {{issuer: 'http://x.example', client_id: a}}}}", "is not https"),
    ("accounts", f"{{secret: {SECRET}, oidc: {{issuer: 'https://x.example'}}}}", "oidc.client_id: is required"),
    ("accounts", f"{{secret: {SECRET}, session: 31d, oidc: {OIDC}}}", "session: is out of range"),
    (
        "accounts",
        f"{{secret: {SECRET}, handover: {{login_url: 'https://x.example/a', issuer: x, alg: HS256}}}}",
        "HS256 takes a secret",
    ),
    ("workers", "0", "is out of range; write at least 1"),
    ("isuer", "x", "isuer: is no setting; did you mean issuer?"),
    ("blah", "x", "blah: is no setting; remove it, or write one of listen, tls,"),
    ("drain", "!!int 5", "has a tag (!…); settings need none, remove it"),
    ("drain", "${DRAIN}", "drain: reads the variable DRAIN, which is not set; set it, or use ${file:PATH}"),
    ("drain", "${EMPTY}", "drain: reads the variable EMPTY, which is empty"),
    ("drain", "${file:/no/such/file}", "drain: reads the file /no/such/file: No such file"),
    ("drain", "${file:/}", "drain: reads the file /: Is a directory"),
    ("drain", "'${DRAIN'", "has a ${ that is not closed or empty"),
    ("drain", "*nothing", "has an alias (*…) to nothing"),
    ("drain", "&x [*x]", "has an alias (*…) to nothing that was complete before it"),
]


@pytest.mark.parametrize(("name", "value", "line"), WRONG, ids=[f"{name}={value}"[:50] for name, value, _ in WRONG])
def test_a_mistake_is_one_line_that_says_what_would_be_right(tmp_path: Path, name: str, value: str, line: str) -> None:
    said = mistakes(written(tmp_path, **{name: value}), {"EMPTY": ""})
    assert len(said) == 1
    assert line in said[0]
    assert re.match(r"[0-9]+: ", said[0])
    assert SECRET not in said[0]
    assert "hunter2" not in said[0]


def test_all_mistakes_come_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "shards: x\norigin:\n  url: s3://abc\n  endpoit: y\nredis: z\nissuer: a\nshards: 1\n"
        "keys:\n- {kid: a, alg: HS256, secret: ${NO}}\n- kid: b\n"
    )
    assert [line.partition(": is")[0].partition(": does")[0].partition(": reads")[0] for line in mistakes(path)] == [
        "4: origin.endpoit",
        "5: redis",
        "7: shards",
        "9: keys[0].secret",
        "10: keys[1].alg",
    ]


def test_references(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = load(
        written(
            tmp_path,
            keys=f"[{{kid: ${{KID}}, alg: HS256, secret: ${{file:{tmp_path}/secret}}, use: sign}}]",
            issuer="'$${KID}.${KID}'",
            public_url="https://${HOST}/x",
        ),
        {"KID": "2026-11", "HOST": "dl.example.com"},
    )
    assert settings.keys[0].kid == "2026-11"
    assert settings.keys[0].secret is not None
    assert settings.keys[0].secret.get_secret_value() == SECRET
    assert settings.issuer == "${KID}.2026-11"
    assert settings.public_url == "https://dl.example.com/x"


def test_what_a_reference_gives_is_not_read_again(tmp_path: Path) -> None:
    assert load(written(tmp_path, issuer="${A}"), {"A": "${B}: [x]"}).issuer == "${B}: [x]"


def test_the_environment_wins(tmp_path: Path) -> None:
    settings = load(
        written(tmp_path, trusted_proxies="[10.0.0.0/8]"),
        {
            "GATEWAY_ISSUER": "other",
            "GATEWAY_ORIGIN__REGION": "eu-central-1",
            "GATEWAY_COUNTING__RESUME_WINDOW": "2h",
            "GATEWAY_TRUSTED_PROXIES": '["192.0.2.0/24"]',
            "GATEWAY_JOURNAL": "{path: /var/journal}",
            "GATEWAY_JOURNAL__KEEP": "1h",
            "GATEWAY_CONFIG": "ignored",
            "GATEWAY_PORT": "tcp://10.0.0.1:80",
            "GATEWAY_SERVICE_HOST": "10.0.0.1",
        },
    )
    assert settings.issuer == "other"
    assert (settings.origin.url, settings.origin.region) == ("s3://shop-files", "eu-central-1")
    assert settings.counting.resume_window == 7200
    assert settings.trusted_proxies == (ip_network("192.0.2.0/24"),)
    assert settings.journal is not None
    assert settings.journal.keep == 3600


def test_the_environment_is_enough(tmp_path: Path) -> None:
    environ = {f"GATEWAY_{name.upper()}": value for name, value in MINIMUM.items()}
    environ["GATEWAY_KEYS"] = json.dumps([{"kid": "a", "alg": "HS256", "secret": "${S}", "use": "sign"}])
    assert load(None, {**environ, "S": SECRET}).issuer == "shop.example.com"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("GATEWAY_ORIGIN__URLL", "x", "GATEWAY_ORIGIN__URLL: origin.urll: is no setting; did you mean url?"),
        ("GATEWAY_ORIGN__URL", "x", "GATEWAY_ORIGN__URL: orign.url: is no setting; did you mean origin?"),
        ("GATEWAY_SHARD", "2", "GATEWAY_SHARD: shard: is no setting; did you mean shards?"),
        ("GATEWAY_SHARDS", "", "GATEWAY_SHARDS: shards: is empty; give it a value or unset the variable"),
        ("GATEWAY_MANAGEMENT__TOKEN", "", "GATEWAY_MANAGEMENT__TOKEN: management.token: is empty"),
        ("GATEWAY_DRAIN", "5", "GATEWAY_DRAIN: drain: is no duration"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8", "GATEWAY_TRUSTED_PROXIES: trusted_proxies: is no list"),
        ("GATEWAY_TRUSTED_PROXIES", "[10.0.0.1/8]", "trusted_proxies[0]: has host bits set; write 10.0.0.0/8"),
        ("GATEWAY_KEYS", "[{kid: a", "GATEWAY_KEYS: keys: is not YAML"),
        ("GATEWAY_KEYS", "[{kid: a, kid: b}]", "kid: is there twice"),
        ("GATEWAY_KEYS__0__SECRET", "x" * 32, "keys: is no list"),
    ],
)
def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path, name: str, value: str, line: str) -> None:
    assert any(line in said for said in mistakes(written(tmp_path), {name: value}))


def test_a_variable_that_the_file_reads_is_no_misspelt_setting(tmp_path: Path) -> None:
    assert load(written(tmp_path, issuer="${GATEWAY_ISSUERS}"), {"GATEWAY_ISSUERS": "x"}).issuer == "x"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"issuer: \xb3\n", "1: is not UTF-8; save the file as UTF-8"),
        (b"issuer: a\x00b\n", "1: is not YAML"),
        (b"a: 1\nb: [1\n", "is not YAML"),
        (b"- a\n", "1: is no mapping"),
        (b"a: 1\n---\nb: 1\n", "starts a second document (---); keep one"),
        (b"#" * (256 * 1024 + 1), "is larger than 256 KiB"),
        (b"a: " + b"[" * 40 + b"]" * 40, "1: is nested deeper than 32 levels"),
        (b"a: &a [1]\nb: [" + b"*a," * 101 + b"]", "2: has more than 100 aliases"),
        (b"? [a]\n: b\n", "1: has a key that is no text"),
    ],
)
def test_files_that_are_none(tmp_path: Path, data: bytes, line: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_bytes(data)
    assert any(line in said for said in mistakes(path))


def test_aliases_expand_once_and_not_without_end(tmp_path: Path) -> None:
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{this}: &{this} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, this in zip("abcdefg", "bcdefgh", strict=True)
    )
    path = tmp_path / "gateway.yaml"
    path.write_text(bomb)
    assert any("has more than 20000 values, aliases expanded" in line for line in mistakes(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory); name a readable file" in mistakes(tmp_path / "none.yaml")[-1]


def test_scalars_are_text_so_nothing_is_misread(tmp_path: Path) -> None:
    settings = load(written(tmp_path, issuer="NO", keys=f"[{{kid: 2026-11-01, alg: HS256, secret: {SECRET}}}]"), {})
    assert (settings.issuer, settings.keys[0].kid) == ("NO", "2026-11-01")


def test_secrets_are_not_in_a_repr(tmp_path: Path) -> None:
    settings = load(
        written(
            tmp_path,
            redis="redis://:hunter2@127.0.0.1/0",
            management="{token: hunter2hunter2}",
            origin="{url: s3://abc, access_key: hunter2, secret_key: hunter2}",
        ),
        {},
    )
    assert "hunter2" not in repr(settings) + str(settings)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    "text",
    [
        "{secret}: x",
        "{secret}: 1\n{secret}: 2",
        "origin: {{{secret}: x}}",
        "counting: {{{secret}:}}",
        "issuer: ${{{secret}}}",
        "{secret}\x1b[0m\u2028: x",
    ],
)
def test_a_secret_that_slipped_into_the_place_of_a_name_is_cut(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.format(secret=SECRET), encoding="utf-8")
    lines = mistakes(path)
    assert lines
    assert not [line for line in lines if SECRET[:9] in line or not line.isprintable()]


def test_a_variable_with_steps_without_end_is_a_mistake(tmp_path: Path) -> None:
    (line,) = mistakes(written(tmp_path), {"GATEWAY_ORIGIN" + "__A" * 2000: "x"})
    assert ": is no setting; " in line


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(written(tmp_path), {})
    with pytest.raises(ValueError, match="frozen"):
        settings.drain = 5


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = Mistakes()
    tree = parse(text, lambda line: f"x:{line}", found)
    assert found.keys if tree is None else plain(tree) is not None


@given(st.text("[]{}:,&*!|>-?'\"\\ \n\tab#%@`$", max_size=60))
def test_any_punctuation_is_read_or_refused(text: str) -> None:
    parse(text, lambda line: f"x:{line}", Mistakes())


def names(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        models = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        nested = [each for each in models if issubclass(each, BaseModel)]
        if nested:
            yield from names(nested[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("name", [*names(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    documented = [
        cell for row in re.findall(r"^\| (`.*?`) \|", DOCS, re.MULTILINE) for cell in re.findall(r"`([^`]+)`", row)
    ]
    assert name in documented


def test_the_example_in_the_docs_is_right(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)[0].replace("/run/secrets/s3", str(tmp_path / "s3"))
    (tmp_path / "s3").write_text("x")
    (tmp_path / "gateway.yaml").write_text(example)
    environ = {"GATEWAY_MANAGEMENT_TOKEN": "x" * 32, "S3_KEY": "a", "GATEWAY_LINK_SECRET": SECRET}
    assert unsupported(load(tmp_path / "gateway.yaml", environ)) == []


@pytest.mark.parametrize(
    ("shops", "accounts", "wrong"),
    [
        ("main", "", ""),
        ("main, pl", "", "accounts.shops: say whose customers sign in there; write some of main, pl"),
        ("main, pl", "shops: [main], ", ""),
        ("main", "shops: [pl], ", "accounts.shops: there is no shop pl; write some of main"),
    ],
)
def test_accounts_are_of_shops_that_there_are(tmp_path: Path, shops: str, accounts: str, wrong: str) -> None:
    each = ", ".join(f"{{name: {name}, kind: signed, secrets: [{SECRET}]}}" for name in shops.split(", "))
    file = written(
        tmp_path,
        public_url="https://dl.example.com",
        shops=f"[{each}]",
        accounts=f"{{secret: {SECRET}, {accounts}oidc: {OIDC}}}",
    )
    if wrong:
        (said,) = mistakes(file)
        assert wrong in said
    else:
        assert load(file, {}).accounts is not None


def test_sign_ins_need_https(tmp_path: Path) -> None:
    file = written(tmp_path, public_url="http://dl.example.com", accounts=f"{{secret: {SECRET}, oidc: {OIDC}}}")
    (said,) = mistakes(file)
    assert "accounts needs an https public_url" in said
    assert "http://localhost:8080 to try it" in said


def test_doors_say_what_they_waive_and_refuse(tmp_path: Path) -> None:
    nothing = load(written(tmp_path), {}).doors
    assert (dict(nothing.refused), {name for name, names in nothing.waived.items() if names}) == ({}, set())
    asking = load(written(tmp_path, doors="{secret: 0123456789abcdef0, auth: {waive: [rate]}}"), {}).doors
    assert asking.refused == {"auth": ("concurrent",)}
    nginx = "{redirect: /_gateway/, waive: [rate]}"
    doors = load(written(tmp_path, doors=f"{{secret: 0123456789abcdef0, nginx: {nginx}, mitm: {{waive: [rate]}}}}"), {})
    assert doors.doors.refused == {"nginx": ("concurrent",)}
    assert doors.doors.waived == {"mitm": {"rate"}, "nginx": {"rate"}, "auth": frozenset()}
