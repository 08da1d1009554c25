"""`gateway rules suggest` as ops run it: a made-up month, of which is known what the tightest rules are."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from redis import Redis

from gateway.policy.events import new_event
from gateway.policy.model import Allow, Claims, Deny, Device, DownloadRequest, FileEntry, Limits, Place, StoredObject
from gateway.policy.reasons import Reason
from gateway.policy.record import describe
from gateway.policy.shards import shard_of

NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000
SIZE = 1_000_000
GEO = "GeoLite2-City 2026-11-01, GeoIP2-Anonymous-IP 2026-11-01"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
RULES = """\
# what we sell, and to whom
version: 1
plans:
  standard: {downloads: 9, networks: 5}   # since the spring
  gold: {valid_for: 1y}
rules:
  - name: nobody
    when: {tier: banned}
    then: deny

# and else
otherwise: allow
"""
FOURTHS, SECOND_NETWORKS = 6, 3
"""Downloads that are the fourth or fifth of their file, and that come from a second network; 10 of 1000 may be lost."""
MORE = ("--at-most", "1%", "--least", "150")


def events() -> list[dict[str, str]]:
    """1,000 downloads of plan standard, 100 of gold and 200 without a plan, and 40 refused programs in Tor."""
    chance = random.Random(8)
    found: list[dict[str, str]] = []
    for number in range(1300):
        plan = "standard" if number < 944 else "gold" if 1000 <= number < 1100 else None
        if 944 <= number < 1000:
            continue
        repeats = 5 if number < 3 else 3 if number < 20 else 1
        found += _link(number, plan, repeats, number in range(100, 100 + SECOND_NETWORKS), chance)
    # 3 × 4 and 17 × 2 repeats, and 3 from another network, are 49 of the 56 left out; so there are 7 more links.
    for number in range(944, 951):
        found += _link(number, "standard", 1, False, chance)
    for number in range(40):
        found += _refused(2000 + number, f"192.0.{number % 8}.7")
    return sorted(found, key=lambda fields: fields["time"])


def _link(number: int, plan: str | None, repeats: int, moves: bool, chance: random.Random) -> Iterator[dict[str, str]]:
    at = NOW_MS - chance.randrange(1, 28) * DAY_MS
    for repeat in range(repeats + moves):
        last = moves and repeat == repeats
        address = f"198.{18 + last}.{number // 200}.{1 + number % 200}"
        asked = _request(f"r{number}-{repeat}", address, BROWSER)
        claims = _claims(number, plan)
        file = FileEntry(f"{'other' if last else 'a'}.pdf")
        decision = Allow(
            file, (), claims.expires_at, plan=plan, rule="otherwise",
            limits=Limits(downloads=9, networks=5) if plan == "standard" else Limits(),
        )  # fmt: skip
        told = describe(
            asked, claims=claims, file=file, device=Device(f"c{number}", asked.client_network, None, f"c{number}"),
            place=Place("PL", "EU", None, None, None, frozenset(), GEO), decision=decision,
            stored=StoredObject(file.key or "", SIZE, '"e"', 0, ""), asked=SIZE,
        )  # fmt: skip
        told |= {"http.response.status_code": "200", "transfer.id": asked.request_id}
        yield new_event("download.allowed", f"{asked.request_id}a", at, {**told, "counted": 1})
        closing = {"outcome": "complete", "counted": 0, "bytes.delivered": SIZE, "duration.ms": 900}
        yield new_event("download.finished", f"{asked.request_id}z", at + 900, {**told, **closing})
        at += 20 * 60_000


def _refused(number: int, address: str) -> Iterator[dict[str, str]]:
    told = describe(
        _request(f"r{number}", address, "scraper/1.2"), claims=_claims(number, "standard"), file=FileEntry("a.pdf"),
        place=Place("DE", "EU", None, None, None, frozenset({"tor", "anonymous"}), GEO),
        decision=Deny(Reason.LIMIT_NETWORKS, rule="otherwise", plan="standard"),
    )  # fmt: skip
    told |= {"reason": "limit.networks", "http.response.status_code": "403"}
    yield new_event("download.denied", f"x{number}", NOW_MS - 3 * DAY_MS, told)


def _request(request_id: str, address: str, agent: str) -> DownloadRequest:
    network = f"{address.rpartition('.')[0]}.0/24"
    return DownloadRequest(request_id, "", 1, "GET", ip_address(address), network, user_agent=agent)


def _claims(number: int, plan: str | None) -> Claims:
    issued = NOW_MS // 1000 - 29 * 86_400
    return Claims(
        "", f"t{number}", NOW_MS // 1000 + 86_400, (), issued_at=issued, order_id=str(number), plan=plan
    )  # fmt: skip


@pytest.fixture(scope="module")
def history() -> list[dict[str, str]]:
    return events()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def export(tmp_path: Path, history: list[dict[str, str]]) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in history))
    return path


@pytest.fixture
def filled(config: Path, redis_db: str, rules: Path, history: list[dict[str, str]]) -> Path:
    """Settings that name the rules and a Redis with the history."""
    with config.open("a") as out:
        out.write(f"rules: {rules}\n")
    with Redis.from_url(redis_db) as client:
        pipeline = client.pipeline(transaction=False)
        for fields in history:
            pipeline.xadd(f"gw:{{{shard_of(fields['order.id'], 4)}}}:events", fields)
        pipeline.execute()
    return config


def refused(run, candidate: Path, export: Path) -> int:
    shown = run("rules", "replay", "--against", candidate, "--since", "30d", export, "--json")
    assert shown.returncode == 0, shown.stderr
    return int(json.loads(shown.stdout)["counts"]["now_refused"])


def test_the_tightest_rules_of_a_known_month_are_found_and_hold_in_a_replay(run, filled, export, tmp_path) -> None:
    shown = run("rules", "suggest", "--config", filled, "-o", "new.yaml", *MORE)
    assert (shown.returncode, shown.stdout) == (0, "")
    new = (tmp_path / "new.yaml").read_text()
    standard = "{downloads: 3, networks: 1, devices: 1, concurrent: 1, valid_after_first: 1h}   # since the spring"
    assert f"\n  standard: {standard}\n" in new
    assert "downloads: 1, networks: 1, devices: 1, concurrent: 1, valid_after_first: 1h" in new
    assert "default_plan: links-without-plan\n\n# and else\n" in new
    today = r"# suggested \d{4}-\d\d-\d\d: "
    assert re.search(rf"{today}downloads 9 → 3; of 1,000 completed downloads in 30d 6 \(0\.60%\) were the fourth", new)
    assert re.search(rf"{today}networks 5 → 1; .* 3 \(0\.30%\) came from a second network .*, of 3 links; ", new)
    assert re.search(r"# nothing suggested \d{4}-\d\d-\d\d: only 100 completed downloads\n  gold: ", new)
    assert re.search(
        r"\{name: suggested-user-agent-scraper, mode: observe, since: .*\{user_agent: \"scraper/\*\"\}", new
    )
    assert "All together, with the rules enforced, they would have refused 9 of 1,300" in shown.stderr
    assert "gateway rules replay --against new.yaml --since 30d" in shown.stderr
    assert run("rules", "check", "new.yaml", "--config", filled, "--strict").returncode == 0
    assert refused(run, tmp_path / "new.yaml", export) == FOURTHS + SECOND_NETWORKS
    (tmp_path / "tighter.yaml").write_text(new.replace("downloads: 3, n", "downloads: 2, n"))
    assert refused(run, tmp_path / "tighter.yaml", export) > 13


def test_exports_need_no_settings_and_places_are_asked(run, rules, export) -> None:
    shown = run("rules", "suggest", export, "--rules", rules, *MORE)
    assert shown.returncode == 0
    kept = [line for line in RULES.splitlines() if "standard:" not in line]
    assert [line for line in shown.stdout.splitlines() if line in kept] == kept
    assert "when: {network: tor}" in shown.stdout
    assert "40 requests from tor networks (8 client networks) in 30d were refused or not completed" in shown.stderr
    assert shown.stdout.count("suggested-") == 1


def test_as_json_for_programs(run, rules, export) -> None:
    shown = run("rules", "suggest", export, "--rules", rules, "--json", *MORE)
    document = json.loads(shown.stdout)
    assert (document["downloads"], document["refused"], document["too_few"]) == (1300, 9, {"gold": 100})
    number, *_, rule = document["suggestions"]
    assert {number["plan"], rule["rule"]} == {"links-without-plan", "suggested-network-tor"}
    assert document["candidate"].startswith("# what we sell")


def test_the_budget_is_kept_where_each_alone_would_use_it_up(run, rules, export) -> None:
    shown = run("rules", "suggest", export, "--rules", rules, "--at-most", "0.5%", "--json", "--least", "150")
    document = json.loads(shown.stdout)
    found = {each["limit"]: each["at_most"] for each in document["suggestions"] if each.get("plan") == "standard"}
    assert (found["downloads"], found["networks"], document["refused"]) == (4, 1, 6)


def test_what_the_rules_refuse_as_they_are_is_no_suggestions_doing(run, rules, export) -> None:
    rules.write_text(RULES.replace("{tier: banned}", '{order: ["0", "1"]}').replace("9, networks", "4, networks"))
    shown = run("rules", "suggest", export, "--rules", rules, "--json", *MORE)
    document = json.loads(shown.stdout)
    assert (document["left_out"], document["downloads"], document["refused"]) == (11, 1289, 4)
    assert "11 completed downloads are left out" in shown.stderr


def test_requests_that_the_replay_could_not_decide_are_told(run, rules, export, history) -> None:
    lines = [{name: text for name, text in each.items() if name != "geo.version"} for each in history[:200]]
    export.write_text("".join(f"{json.dumps(each)}\n" for each in [*lines, *history[200:]]))
    shown = run("rules", "suggest", export, "--rules", rules, "--json", *MORE)
    assert json.loads(shown.stdout)["undecided"] == sum(each["type"] != "download.finished" for each in lines)
    assert "requests could not be decided again" in shown.stderr


def test_a_gateway_without_rules_gets_a_file(run, filled, rules, tmp_path) -> None:
    filled.write_text(filled.read_text().replace(f"rules: {rules}\n", ""))
    shown = run("rules", "suggest", "--config", filled, "-o", "new.yaml", *MORE)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "default_plan: links-without-plan" in (tmp_path / "new.yaml").read_text()


def test_too_few_downloads_are_said(run, config, rules, export) -> None:
    shown = run("rules", "suggest", "--config", config, "--rules", rules)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "there are 0 completed downloads in 30d, too few" in shown.stderr
    assert run("rules", "suggest", export, "--rules", rules, "--least", "1301").returncode == 1


def test_a_file_that_is_there_is_kept_unless_forced(run, rules, export, tmp_path) -> None:
    (tmp_path / "new.yaml").write_text("mine")
    shown = run("rules", "suggest", export, "--rules", rules, "-o", "new.yaml", *MORE)
    assert (shown.returncode, (tmp_path / "new.yaml").read_text()) == (1, "mine")
    assert "overwrite it with --force" in shown.stderr
    assert run("rules", "suggest", export, "--rules", rules, "-o", "new.yaml", "--force", *MORE).returncode == 0
    assert (tmp_path / "new.yaml").read_text() != "mine"


def test_the_rules_file_itself_is_never_overwritten(run, rules, export) -> None:
    shown = run("rules", "suggest", export, "--rules", rules, "-o", rules, "--force", *MORE)
    assert (shown.returncode, rules.read_text()) == (1, RULES)
    assert "is the rules file itself" in shown.stderr


def test_list_files_keep_their_folder(run, rules, export, tmp_path) -> None:
    (tmp_path / "own.txt").write_text("banned\n")
    (tmp_path / "other").mkdir()
    rules.write_text(RULES.replace("rules:\n", "lists: {own: {file: own.txt}}\nrules:\n").replace("banned", "$own"))
    shown = run("rules", "suggest", export, "--rules", rules, "-o", "other/new.yaml", *MORE)
    assert shown.returncode == 1
    assert "name list files from their folder on" in shown.stderr


@pytest.mark.parametrize("wrong", [["--at-most", "0.001"], ["--at-most", "100%"], ["--since", "a month"], []])
def test_wrong_use(run, export, wrong) -> None:
    assert run("rules", "suggest", export, *wrong).returncode == 2
