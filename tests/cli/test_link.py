from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.policy.keys import KeySet, load_key
from gateway.policy.model import Claims, FileEntry
from gateway.policy.tokens import parse

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "0123456789abcdef0123456789abcdef"
KEYS = KeySet([load_key(kid="a", alg="HS256", secret=SECRET, use="sign")])


def created(run: Run, config: Path, *options: str) -> dict[str, str]:
    shown = run("link", "create", *options, "--json", "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    document: dict[str, str] = json.loads(shown.stdout)
    return document


def test_a_link_carries_a_genuine_token(run: Run, config: Path) -> None:
    shown = run(
        *("link", "create", "--order", "10001", "--customer", "C7", "--downloads", "5", "--expires", "2d", "--account"),
        *("--file", "ebooks/sea.pdf", "--file=masters/ż.wav", "--name", "Może: tak.wav", "--file", "c", "--name=C"),
        *("--ip", "203.0.113.0/24", "--ip", "2001:db8::/48", "--config", config),
    )
    assert (shown.returncode, shown.stderr.count("\n")) == (0, 1)
    assert "401" in shown.stderr
    link = re.fullmatch(r"https://dl\.example\.com/l/([A-Za-z0-9_.-]+)\n", shown.stdout)
    assert link is not None
    claims = parse(link[1], KEYS, "shop.example.com")
    assert isinstance(claims, Claims)
    assert (claims.order_id, claims.customer_id, claims.limits.get("downloads")) == ("10001", "C7", 5)
    assert claims.files == (
        FileEntry("ebooks/sea.pdf"),
        FileEntry("masters/ż.wav", name="Może: tak.wav"),
        FileEntry("c", name="C"),
    )
    assert claims.issued_at is not None
    assert claims.expires_at - claims.issued_at == 2 * 86_400
    assert [str(network) for network in claims.ip] == ["203.0.113.0/24", "2001:db8::/48"]
    assert claims.account is True


def test_json_shows_the_token_and_its_claims(run: Run, config: Path) -> None:
    document = created(run, config, "--file", "a", "--order", "1")
    assert list(document) == ["link", "token_id", "claims"]
    claims = parse(document["link"].rpartition("/")[2], KEYS, "shop.example.com")
    assert isinstance(claims, Claims)
    assert claims.token_id == document["token_id"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--plan", "standard"], "--plan: there is no plan standard; the rules file has no plans"),
        (["--file", "../../etc/passwd"], "no link was made: a file's key has a . or .. segment"),
        (["--order", "a\nb"], "no link was made: order has control characters"),
        (["--name", "x" * 300], "no link was made: name is not a text of 1 to 255"),
    ],
)
def test_what_cannot_be_granted_is_refused(run: Run, config: Path, options: list[str], line: str) -> None:
    shown = run("link", "create", "--file", "a", *options, "--config", config)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert line in shown.stderr
    assert json.loads(run("link", "list", "--json", "--config", config).stdout) == []


def test_two_names_of_one_file_are_wrong_use(run: Run, config: Path) -> None:
    shown = run("link", "create", "--file", "a", "--name", "x", "--name", "y", "--config", config)
    assert shown.returncode == 2
    assert "the file a has two names" in shown.stderr


def test_without_a_signing_key_no_link_is_made(run: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("use: sign", "use: verify"))
    shown = run("link", "create", "--file", "a", "--config", config)
    assert shown.returncode == 1
    assert "no key has use: sign" in shown.stderr


def test_show_by_id_by_link_and_by_order(run: Run, config: Path) -> None:
    made = created(run, config, "--file", "a/b.pdf", "--name", "B.pdf", "--order", "10001", "--downloads", "3")
    by_id = run("link", "show", made["token_id"], "--config", config)
    assert by_id.returncode == 0
    assert by_id.stdout.splitlines()[0] == f"{made['token_id']}  valid"
    assert "a/b.pdf as B.pdf: 0 of 3 downloads used" in by_id.stdout
    assert re.search(r"expires +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", by_id.stdout)
    token = made["link"].rpartition("/")[2]
    for argument in (made["link"], made["link"].replace("/l/", "/d/") + "/1/B.pdf?view=1", token):
        assert run("link", "show", argument, "--config", config).stdout == by_id.stdout
    assert run("link", "show", "--order", "10001", "--config", config).stdout == by_id.stdout

    document = json.loads(run("link", "show", made["token_id"], "--json", "--config", config).stdout)
    assert document["state"] == "valid"
    assert document["claims"] == made["claims"]
    assert document["files"] == [{"key": "a/b.pdf", "downloads": 0, "limit": 3}]
    documents = json.loads(run("link", "show", "--order", "10001", "--json", "--config", config).stdout)
    assert documents == [document]


def test_a_link_of_another_shop_or_nobody_is_refused(run: Run, config: Path) -> None:
    made = created(run, config, "--file", "a")
    forged = made["link"][:-4] + "AAAA"
    for argument, line in [
        (forged, "this link is not good: token.signature"),
        ("ffffffffffffffffffffffff", "no link with this id was made here"),
    ]:
        shown = run("link", "show", argument, "--config", config)
        assert (shown.returncode, shown.stdout) == (1, "")
        assert line in shown.stderr
        assert forged.rpartition(".")[2] not in shown.stderr


def test_a_link_that_the_shop_signed_itself_is_shown_from_its_token(run: Run, config: Path) -> None:
    made = created(run, config, "--file", "a")
    # The registry forgets; the token does not.
    shown = run("link", "show", made["link"], "--config", config, GATEWAY_REDIS=f"{redis_of(config)[:-1]}9")
    assert shown.returncode == 0
    assert "created   not here" in shown.stdout


def redis_of(config: Path) -> str:
    found = re.search(r"redis: (\S+)", config.read_text())
    assert found is not None
    return found[1]


def test_list(run: Run, config: Path) -> None:
    first = created(run, config, "--file", "a", "--order", "1")
    second = created(run, config, "--file", "b\u202e", "--file", "c")
    lines = run("link", "list", "--config", config).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [first["token_id"], second["token_id"]]
    assert lines[1].endswith("-  b\ufffd, c")
    documents = json.loads(run("link", "list", "--order", "1", "--json", "--config", config).stdout)
    assert [document["claims"] for document in documents] == [first["claims"]]


def test_show_tells_the_plan_and_what_is_left_of_it(run: Run, config: Path) -> None:
    rules = config.with_name("rules.yaml")
    rules.write_text(
        "version: 1\notherwise: allow\nplans: {p: {downloads: 5, networks: 3, rate: 2MB/s, valid_for: 1d}}\n"
        "default_plan: p\n"
    )
    with config.open("a") as settings:
        settings.write(f"rules: {rules}\n")
    made = created(run, config, "--file", "a", "--downloads", "4")
    shown = run("link", "show", made["token_id"], "--config", config).stdout
    assert "plan      p\n" in shown
    assert "limits    downloads 4, networks 3 (0 used), rate 2MB/s\n" in shown
    assert "0 of 4 downloads used" in shown
    document = json.loads(run("link", "show", made["token_id"], "--json", "--config", config).stdout)
    assert document["limits"] == {"downloads": 4, "networks": 3, "rate": 2_000_000}
    assert document["used"] == {"networks": 0, "devices": 0, "concurrent": 0, "first_download": None}
    assert made["claims"]["exp"] - made["claims"]["iat"] == 86_400


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--downloads", "6"], "--downloads can only tighten the plan p; write 5 or less"),
        (["--expires", "2d"], "--expires can only tighten the plan p; write 1d or less"),
        (["--plan", "q"], "--plan: there is no plan q; write one of p"),
    ],
)
def test_a_link_cannot_loosen_its_plan(run: Run, config: Path, options: list[str], line: str) -> None:
    rules = config.with_name("rules.yaml")
    rules.write_text("version: 1\notherwise: allow\nplans: {p: {downloads: 5, valid_for: 1d}}\ndefault_plan: p\n")
    with config.open("a") as settings:
        settings.write(f"rules: {rules}\n")
    refused = run("link", "create", "--file", "a", *options, "--config", config)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert line in refused.stderr


def test_a_link_that_cannot_give_what_its_plan_asks_of_guests_is_told_of(run: Run, config: Path) -> None:
    rules = config.with_name("rules.yaml")
    rules.write_text("version: 1\notherwise: allow\nplans: {p: {bind_ip: order, new_device: code}}\ndefault_plan: p\n")
    config.write_text(f"{config.read_text()}rules: {rules}\n")
    create = ("link", "create", "--file", "a", "--config", config)
    lacking = run(*create, "--order", "1").stderr
    assert "Note: plan p: bind_ip rests on orders, which the settings have not" in lacking
    assert "Note: plan p: new_device rests on orders and mail, which the settings have not" in lacking
    mail = "{server: 'smtp://x.example', sender: a@example.com}"
    config.write_text(f"{config.read_text()}orders: {{url: 'sqlite:///{config.parent}/o.db'}}\nmail: {mail}\n")
    assert run(*create).stderr.count("this link has no order") == 2
    assert "unless the order book has the order" in run(*create, "--order", "1").stderr


def test_a_link_that_a_door_will_refuse_is_told_of(run: Run, config: Path) -> None:
    doors = "{secret: 0123456789abcdef0, nginx: {redirect: /_gateway/, waive: [concurrent]}}"
    config.write_text(f"{config.read_text()}doors: {doors}\n")
    create = ("link", "create", "--file", "a", "--config", config)
    plain, held = run(*create, "--concurrent", "1"), run(*create, "--rate", "1MB/s", "--concurrent", "1")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert held.returncode == 0
    assert held.stderr == "Note: the door nginx refuses this link, for it cannot keep rate; see `gateway doors`.\n"
