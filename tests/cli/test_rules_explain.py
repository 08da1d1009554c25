from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.redis_events import stream
from gateway.backends.redis_ledger import file_keys
from gateway.bootstrap.orders import open_desk
from gateway.cli.demo_geo import build_demo_databases
from gateway.policy.claims import read_claims
from gateway.policy.events import new_event
from gateway.policy.model import Claims, Deny, DownloadRequest, FileEntry, Limits, Place
from gateway.policy.orders import Line, Notice
from gateway.policy.reasons import Reason
from gateway.policy.record import describe
from gateway.policy.shards import shard_of
from gateway.services.identifiers import now_ms
from gateway.settings import load

Run = Callable[..., subprocess.CompletedProcess[str]]
NOW = 1_795_228_200_125
RULES = """version: 1
plans: {standard: {downloads: 5, networks: 1, valid_after_first: 72h}}
default_plan: standard
rules:
  - {name: office, when: {ip: 203.0.113.0/24}, then: allow}
  - {name: slow, when: {not: {tier: [gold, silver]}}, then: {limit: {rate: 1MB/s}}}
  - {name: trial, mode: observe, when: {method: GET}, then: deny}
  - {name: embargo, when: {country: [CU, IR]}, then: deny, message: Not there.}
  - {name: masters, when: {file: "masters/**"}, then: require_account}
otherwise: allow
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def settings(config: Path, rules: Path, tmp_path: Path) -> Path:
    """Settings with rules and the demo's geo databases."""
    geo = ", ".join(f'{name}: "{path}"' for name, path in build_demo_databases(tmp_path).items())
    config.write_text(f"{config.read_text()}rules: {rules}\ngeo: {{{geo}}}\n")
    return config


def explained(run: Run, *options: str | Path) -> list[str]:
    shown = run("rules", "explain", *options)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line for line in shown.stdout.splitlines() if len(line) > 100 and not line.startswith("rules of ")] == []
    return shown.stdout.splitlines()


def document(run: Run, *options: str | Path) -> dict[str, object]:
    shown = run("rules", "explain", "--json", *options)
    assert (shown.returncode, shown.stderr) == (0, "")
    return json.loads(shown.stdout)


def test_a_request_that_is_only_given(run: Run, rules: Path) -> None:
    options = ("--country", "DE", "--tier", "free", "--file", "masters/a.wav", "--time", "2026-11-20T12:00:00+01:00")
    lines = explained(run, "--rules", "rules.yaml", *options)
    assert lines[3].startswith("rules of rules.yaml as the file is now, version ")
    assert [line for line in lines if "version" not in line] == [
        "require_account account.required by masters (rules.yaml:9)",
        "given   {country: DE, file: masters/a.wav, tier: free, time: 2026-11-20T11:00:00Z}",
        "",
        "  passed    office (rules.yaml:5): ip: 203.0.113.0/24 – ip is unknown",
        "  limits    slow (rules.yaml:6): rate 1MB/s – tier is free",
        "  observes  trial (rules.yaml:7): would deny – method is GET",
        "  passed    embargo (rules.yaml:8): country: [CU, IR] – country is DE",
        "  account   masters (rules.yaml:9): file is masters/a.wav",
        "  allows    otherwise",
        "",
        "plan standard, the default one",
        "  downloads          5        plan standard",
        "  networks           1        plan standard",
        "  rate               1MB/s    rule slow",
        "  valid_after_first  3d       plan standard",
    ]


def test_the_same_as_json(run: Run, rules: Path) -> None:
    found = document(run, "--rules", "rules.yaml", "--country", "IR", "--time", "2026-11-20T12:00:00+01:00", "--view")
    assert len(found["rules"].pop("version")) == 12
    assert {name: value for name, value in found.items() if name not in ("steps", "limits")} == {
        "outcome": "deny",
        "reason": "rule.denied",
        "rule": "embargo",
        "source": "rules.yaml:8",
        "message": "Not there.",
        "would_deny": ["trial"],
        "rules": {"file": "rules.yaml"},
        "given": {"country": "IR", "time": "2026-11-20T11:00:00Z", "view": "true"},
        "plan": "standard",
        "guests": [],
    }
    assert found["steps"][0] == {
        "rule": "office",
        "source": "rules.yaml:5",
        "then": "allow",
        "observe": False,
        "matches": False,
        "failed": "ip: 203.0.113.0/24",
        "seen": "ip is unknown",
    }
    assert found["limits"][0] == {
        "name": "downloads",
        "limit": 5,
        "from": "plan standard",
        "used": None,
        "state": "kept",
    }


def test_what_explain_was_given_is_a_test(run: Run, rules: Path) -> None:
    lines = explained(run, "--rules", "rules.yaml", "--order", "a: b", "--network", "vpn", "--user-agent", "x # y")
    assert the_given_is_a_test(run, rules, lines)


def the_given_is_a_test(run: Run, rules: Path, lines: list[str]) -> bool:
    given = " ".join(line.strip() for line in lines[1 : lines.index("")]).removeprefix("given").strip()
    rules.with_name("tests.yaml").write_text(f"- {{given: {given}, expect: allow}}\n")
    return run("rules", "test", "rules.yaml").stdout == "1 of 1 tests passed\n"


@pytest.mark.parametrize("text", ["*x", "null", "Null", "NULL", "-", "~", "a:", "[x", "&x", "!x", "%x", "'"])
def test_what_yaml_would_read_otherwise_is_quoted(run: Run, rules: Path, text: str) -> None:
    lines = explained(run, "--rules", "rules.yaml", f"--customer={text}", "--order", "*.y", f"--user-agent={text}")
    assert the_given_is_a_test(run, rules, lines)


def test_a_pair_that_is_given_is_not_broken(run: Run, rules: Path) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64) " + "Firefox " * 4
    options = ("--country", "PL", "--customer", "c  d " * 8, "--order", "e f " * 5, "--user-agent", agent)
    lines = explained(run, "--rules", "rules.yaml", *options)
    shown = lines[1 : lines.index("")]
    assert len(shown) > 1
    for pair in (f'customer: "{"c  d " * 8}"', f'order: "{"e f " * 5}"', f'user_agent: "{agent}"'):
        assert len([line for line in shown if pair in line]) == 1
    assert the_given_is_a_test(run, rules, lines)


def test_an_external_address_is_shown_without_its_query(run: Run, settings: Path) -> None:
    settings.write_text(f"{settings.read_text()}external_hosts: [cdn.example.com]\n")
    rules = settings.parent / "rules.yaml"
    rules.write_text(RULES.replace('"masters/**"', '"https://cdn.example.com/**"'))
    address = "https://cdn.example.com/a.zip"
    files = ("--file", f"{address}?sig=TOPSECRET#TOPSECRET", "--file", "b.pdf")
    name = json.loads(run("link", "create", "--json", "--config", settings, *files).stdout)["token_id"]
    lines = explained(run, "--link", name, "--config", settings)
    assert any(f"file: {address}" in line for line in lines)
    assert any(f"file is {address}" in line for line in lines)
    said = [
        run(*command, "--config", settings)
        for command in (
            ("rules", "explain", "--link", name),
            ("rules", "explain", "--link", name, "--json"),
            ("rules", "explain", "--link", name, "--file", address),
            ("rules", "explain", "--link", name, "--file", "c.pdf"),
            ("link", "show", name),
            ("link", "show", name, "--json"),
            ("link", "list"),
            ("link", "list", "--json"),
        )
    ]
    assert [each.returncode for each in said] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert [each.stdout + each.stderr for each in said if address not in each.stdout + each.stderr] == []
    assert [each.stdout + each.stderr for each in said if "TOPSECRET" in each.stdout + each.stderr] == []


def test_the_place_of_an_address_is_looked_up_unless_it_is_given(run: Run, settings: Path) -> None:
    looked_up = document(run, "--ip", "192.0.2.1", "--config", settings)["given"]
    assert looked_up.keys() >= {"ip", "country", "continent", "asn", "network"}
    given = document(run, "--ip", "192.0.2.1", "--country", "IR", "--config", settings)["given"]
    assert given["country"] == "IR"
    assert given["continent"] == looked_up["continent"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--country", "pl"), "Invalid value for --country: pl is no country code; write PL"),
        (("--ip", "203.0.113.0/24"), "--ip: 203.0.113.0/24 is no address; write one such as 203.0.113.9"),
        (("--network", "vpn", "--network", "none"), "--network: vpn none is no type beside others"),
        (("--user-agent", "a", "--method", "POST"), "--method: POST is no method of a download; write GET or HEAD"),
        (("--file", "http://[x/a.zip"), "--file: http://[x/a.zip is no address; write one such as https://"),
        (("--link", "x", "--event", "y"), "name either --link or --event"),
    ],
)
def test_wrong_use(run: Run, rules: Path, options: tuple[str, ...], line: str) -> None:
    shown = run("rules", "explain", "--rules", "rules.yaml", *options)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert line in shown.stderr


def made(run: Run, config: Path, *options: str) -> dict[str, object]:
    shown = run("link", "create", "--json", "--config", config, *options)
    assert (shown.returncode, shown.stderr) == (0, "")
    return json.loads(shown.stdout)


def test_a_link_by_its_address_with_what_was_used_of_it(run: Run, settings: Path, redis_db: str) -> None:
    link = made(
        run, settings, "--file", "a.pdf", "--file", "masters/b.wav", "--order", "10001", "--tier", "gold",
        "--downloads", "2",
    )  # fmt: skip
    lines = explained(run, "--link", str(link["link"]), "--config", settings)
    assert lines[0] == "allow by otherwise"
    checks = "checks  frozen ok, revoked ok, order not asked, token ok, rules ok, account ok, view ok, door ok,"
    at = lines.index(checks)
    assert lines[at + 1] == "        limits ok"
    assert "  passed    slow (rules.yaml:6): not: {tier: [gold, silver]} – tier is gold" in lines
    assert "  downloads          2        token          0 used" in lines
    assert "  valid_after_first  3d       plan standard  no download yet" in lines
    assert lines[-1].startswith("  expires            20")
    for name in ("2", "masters/b.wav"):
        second = document(run, "--link", str(link["token_id"]), "--file", name, "--config", settings)
        assert (second["outcome"], second["rule"]) == ("require_account", "masters")
        assert second["given"]["file"] == "masters/b.wav"
        assert second["checks"]["account"] == "refused"
    claims = read_claims(link["claims"], "shop.example.com")
    assert isinstance(claims, Claims)
    key = file_keys(shard_of("10001", 4), claims.token_key, "a.pdf")[0]
    with Redis.from_url(redis_db) as client:
        client.hset(key, "used", "2")
    used_up = document(run, "--link", str(link["token_id"]), "--config", settings)
    assert (used_up["outcome"], used_up["reason"], used_up["rule"]) == ("deny", "limit.downloads", "otherwise")
    assert used_up["checks"]["limits"] == "refused"
    assert used_up["limits"][0] == {
        "name": "downloads",
        "limit": 2,
        "from": "token",
        "used": 2,
        "state": "kept",
    }
    assert explained(run, "--link", str(link["token_id"]), "--config", settings)[0] == "deny limit.downloads"
    for options in (("--file", "3"), ("--file", "c.pdf")):
        shown = run("rules", "explain", "--link", str(link["token_id"]), *options, "--config", settings)
        assert (shown.returncode, "the link has no file " in shown.stderr) == (1, True)


def test_a_link_for_some_networks_asks_for_the_address(run: Run, settings: Path) -> None:
    link = made(run, settings, "--file", "a.pdf", "--ip", "198.51.100.0/24")
    options = ("--link", str(link["token_id"]), "--config", settings)
    named = "deny token.ip: the link is for some networks only; name the client's address with --ip"
    assert explained(run, *options)[0] == named
    assert explained(run, *options, "--ip", "192.0.2.1")[0] == "deny token.ip"
    assert explained(run, *options, "--ip", "198.51.100.7")[0].startswith("allow ")


def test_a_link_of_an_order_that_does_not_give_the_file(run: Run, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "products.yaml").write_text("version: 1\nproducts:\n  - {sku: SEA, files: [sea.pdf]}\n")
    settings.write_text(
        f"{settings.read_text()}shops: [{{name: main, kind: signed, secrets: [{'s' * 32}]}}]\n"
        f"orders: {{url: 'sqlite:///{tmp_path}/orders.db'}}\nproducts: {tmp_path}/products.yaml\n"
    )
    line = Line("1", sku="SEA")

    async def sell() -> None:
        async with open_desk(load(settings, {})) as (_, fulfilment):
            await fulfilment.hear("main", Notice("10001", now_ms(), "#10001", paid=True, lines=(line,)))

    asyncio.run(sell())
    link = made(run, settings, "--file", "sea.pdf", "--file", "other.pdf", "--order", "main-10001")
    options = ("--link", str(link["token_id"]), "--config", settings)
    given, other = document(run, *options), document(run, *options, "--file", "2")
    assert (given["outcome"], given["checks"]["order"]) == ("allow", "ok")
    assert (other["reason"], other["checks"]["order"], other["steps"]) == ("token.revoked", "refused", [])


def test_a_revoked_link_meets_no_rule(run: Run, settings: Path) -> None:
    link = made(run, settings, "--file", "a.pdf")
    assert run("link", "revoke", str(link["token_id"]), "--config", settings).returncode == 0
    lines = explained(run, "--link", str(link["token_id"]), "--config", settings)
    assert lines[0] == "deny token.revoked"
    assert "  were not asked" in lines


def test_where_all_is_frozen_that_is_asked_first(run: Run, settings: Path) -> None:
    link = made(run, settings, "--file", "a.pdf")
    assert run("freeze", "--message", "Back at noon.", "--config", settings).returncode == 0
    lines = explained(run, "--link", str(link["token_id"]), "--config", settings)
    assert lines[0] == "deny frozen: Back at noon."
    assert any(line.startswith("checks  frozen refused, revoked not asked, order not asked, token") for line in lines)
    assert "  were not asked" in lines


def test_a_link_ends_as_the_plan_that_is_asked_about_says(run: Run, settings: Path, rules: Path) -> None:
    rules.write_text(RULES.replace("plans: {", "plans: {short: {valid_for: 1s}, "))
    link = made(run, settings, "--file", "a.pdf", "--expires", "1h")
    claims = read_claims(link["claims"], "shop.example.com")
    assert isinstance(claims, Claims)
    assert claims.issued_at is not None
    later = f"{datetime.fromtimestamp(claims.issued_at + 2, UTC):%Y-%m-%dT%H:%M:%SZ}"
    options = ("--link", str(link["token_id"]), "--time", later, "--config", settings)
    assert explained(run, *options)[0] == "allow by otherwise"
    short = explained(run, *options, "--plan", "short")
    ends = f"{datetime.fromtimestamp(claims.issued_at + 1, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert (short[0], short[-1]) == ("deny token.expired", f"  expires            {ends}")
    assert document(run, *options, "--plan", "short")["expires"] == ends


def denied(**changes: str) -> dict[str, str]:
    """The event of a request that an embargo refused."""
    request = DownloadRequest("r-1", "", 1, "GET", ip_address("192.0.2.1"), "192.0.2.0/24", user_agent="curl/8")
    claims = Claims("", "t-1", NOW // 1000 + 9, (), order_id="10001", tier="gold", limits=Limits(downloads=2))
    fields = describe(
        request,
        claims=claims,
        file=FileEntry("a.pdf"),
        place=Place("IR", "AS", version="g"),
        decision=Deny(Reason.RULE_DENIED, rule="old-embargo", plan="standard"),
    )
    fields = {**fields, "reason": "rule.denied", "rules.version": "0123456789ab", **changes}
    return new_event("download.denied", "e-1", NOW, fields)


@pytest.mark.parametrize("name", ["e-1", "r-1"])
def test_an_event_says_what_was_decided_then_and_would_be_now(
    run: Run, settings: Path, redis_db: str, name: str
) -> None:
    with Redis.from_url(redis_db) as client:
        client.xadd(stream(shard_of("10001", 4)), dict(denied()))
    lines = explained(run, "--event", name, "--config", settings)
    assert lines[:2] == [
        "then    deny rule.denied by old-embargo at 2026-11-21T02:30:00.125Z, rules.version 0123456789ab",
        "now     the file says deny rule.denied by embargo (rules.yaml:8): Not there.",
    ]
    assert not [line for line in lines if line.startswith("checks")]
    assert "  downloads          2        token          0 used" in lines
    without = explained(run, "--event", name, "--country", "PL", "--config", settings)
    assert without[1] == "now     the file says allow by otherwise, within its limits"
    elsewhere = document(run, "--event", name, "--country", "PL", "--config", settings)
    assert (elsewhere["outcome"], elsewhere["then"]["rule"]) == ("allow", "old-embargo")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(
            ({"reason": reason}, f"unchanged: {reason}, which no rule changes; the file's rules alone say deny")
            for reason in ("token.revoked", "token.ip", "order.unpaid", "token.expired", "frozen", "redis.down", "new")
        ),
        ({"reason": "limit.downloads"}, "the file says deny rule.denied by embargo"),
        # Ended by its plan, which another rules file may change; as the rules stand it would be allowed.
        (
            {"reason": "token.expired", "rule": "otherwise", "geo.country.iso_code": "PL"},
            "the file says allow by otherwise, within its limits",
        ),
        (
            {"reason": "token.expired", "rule": "otherwise", "geo.country.iso_code": "PL", "token.expires_at": "9"},
            "the file says deny token.expired",
        ),
        # What has begun may finish.
        (
            {
                "type": "download.allowed",
                "reason": "",
                "geo.country.iso_code": "PL",
                "token.expires_at": "9",
                "transfer.id": "r-0",
            },
            "the file says allow by otherwise, within its limits",
        ),
    ],
)
def test_what_no_rules_file_changes_is_not_promised(
    run: Run, settings: Path, redis_db: str, fields: dict[str, str], said: str
) -> None:
    event = {name: text for name, text in denied(**fields).items() if text and (name != "rule" or "rule" in fields)}
    with Redis.from_url(redis_db) as client:
        client.xadd(stream(0), event)
    lines = explained(run, "--event", "e-1", "--config", settings)
    now = " ".join(line.strip() for line in lines[1 : next(n for n, line in enumerate(lines) if "given" in line)])
    assert now.startswith(f"now     {said}")
    found = document(run, "--event", "e-1", "--config", settings)
    assert found["unchanged"] == said.startswith("unchanged")
    if found["unchanged"]:
        assert (found["outcome"], found["reason"], found["rule"]) == ("deny", fields["reason"], None)


def test_the_end_of_a_download_stands_for_its_beginning(run: Run, settings: Path, redis_db: str) -> None:
    ended = {**denied(), "id": "e-2", "type": "download.finished", "time": "2026-11-21T03:30:00.000Z"}
    with Redis.from_url(redis_db) as client:
        for event in (denied(), ended):
            client.xadd(stream(shard_of("10001", 4)), dict(event))
    assert document(run, "--event", "e-2", "--config", settings)["given"]["time"] == "2026-11-21T02:30:00Z"


def test_events_that_cannot_be_explained(run: Run, settings: Path, redis_db: str) -> None:
    with Redis.from_url(redis_db) as client:
        client.xadd(stream(0), dict(new_event("rules.reloaded", "e-3", NOW, {"reason": "rules"})))
        client.xadd(stream(1), {name: text for name, text in denied().items() if name != "token.expires_at"})
    for name, line in {
        "e-9": "there is no event e-9; see `gateway events tail",
        "e-3": "event e-3 is rules.reloaded, which decides nothing; name a download.allowed or download.denied",
        "e-1": "the request of event e-1 cannot be decided again: it has no token.expires_at",
    }.items():
        shown = run("rules", "explain", "--event", name, "--config", settings)
        assert (shown.returncode, shown.stdout) == (1, "")
        assert line in shown.stderr


def test_rules_whose_tests_fail_are_explained_all_the_same(run: Run, settings: Path, rules: Path) -> None:
    rules.with_name("tests.yaml").write_text("- {given: {country: IR}, expect: allow}\n")
    shown = run("rules", "explain", "--country", "IR", "--config", settings)
    assert shown.stdout.startswith("deny rule.denied by embargo")
    assert "a running gateway keeps the ones before: see `gateway rules test`" in shown.stderr


def test_what_the_door_cannot_keep_is_why_it_refuses(run: Run, settings: Path) -> None:
    slow = ("--tier", "none", "--front", "nginx")
    lines = explained(run, "--rules", "rules.yaml", *slow)
    assert lines[0].startswith("deny limit.unkept: The door nginx cannot keep rate;")
    (given,) = [line for line in lines if line.startswith("given ")]
    assert given.endswith(", front: nginx}")
    (limit,) = [line for line in lines if line.startswith("  rate ")]
    assert limit.split() == ["rate", "1MB/s", "rule", "slow", "the", "door", "nginx", "cannot", "keep", "it"]
    assert explained(run, "--rules", "rules.yaml", *slow[:2])[0] == "allow by otherwise"
    settings.write_text(f"{settings.read_text()}doors: {{nginx: {{waive: [rate]}}}}\n")
    lines = explained(run, "--config", settings, *slow)
    assert lines[0] == "allow by otherwise"
    (limit,) = [line for line in lines if line.startswith("  rate ")]
    assert limit.endswith("not kept: doors.nginx.waive in the settings gives it up")
    found = document(run, "--config", settings, "--tier", "none", "--front", "auth")
    assert (found["outcome"], found["reason"]) == ("deny", "limit.unkept")
    assert {each["name"]: each["state"] for each in found["limits"]}["rate"] == "unkept"
    shown = run("rules", "explain", "--rules", "rules.yaml", "--front", "side")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "--front: side is no front door; write one of http, mitm, nginx, auth" in shown.stderr


def test_an_event_is_explained_at_its_own_door(run: Run, settings: Path, redis_db: str) -> None:
    event = denied(front="nginx", reason="limit.unkept", tier="none", **{"geo.country.iso_code": "PL"})
    with Redis.from_url(redis_db) as client:
        client.xadd(f"gw:{{{shard_of('10001', 4)}}}:events", event)
    lines = explained(run, "--event", "e-1", "--config", settings)
    assert lines[0].startswith("then    deny limit.unkept")
    assert lines[1].startswith("now     the file says deny limit.unkept: The door nginx cannot keep rate")
    lines = explained(run, "--event", "e-1", "--front", "http", "--config", settings)
    assert lines[1] == "now     the file says allow by otherwise, within its limits"
