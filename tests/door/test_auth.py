"""`/auth` as nginx, Traefik and Caddy ask it: who may, what it believes, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from gateway.errors import OriginDown
from gateway.web.metrics import REFUSALS

SECRET = "0123456789abcdef-for-tests"
DOORS = f"doors: {{secret: {SECRET}}}\n"
KEY = "ebooks/Zażółć %2F & co.pdf"


def traefik(path: str, method: str = "GET", **more: str) -> dict[str, str]:
    return {
        "X-Gateway-Secret": SECRET,
        "X-Forwarded-Method": method,
        "X-Forwarded-Uri": path,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "dl.example.com",
        "X-Forwarded-For": "198.51.100.7",
        **more,
    }


async def ask(gateway, headers: dict[str, str], query: str = "?statuses=all") -> tuple[int, Mapping[str, str], bytes]:
    url = f"{gateway.base}/auth{query}"
    async with gateway.client.get(url, headers=headers, allow_redirects=False) as response:
        return response.status, response.headers, await response.read()


async def test_yes_tells_where_the_bytes_are_and_charges(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file(KEY, 1000)
        token = gateway.token(KEY, downloads=1)
        status, headers, body = await ask(gateway, traefik(f"/d/{token}?utm_source=mail", Range="bytes=0-9"))
        assert (status, body) == (200, b"")
        assert headers["X-Gateway-File"] == "ebooks/Za%C5%BC%C3%B3%C5%82%C4%87%20%252F%20%26%20co.pdf"
        assert headers["X-Gateway-Path"].encode("utf-8", "surrogateescape") == KEY.encode()
        assert headers["X-Gateway-Status"] == "200"
        assert headers["X-Gateway-Content-Type"] == "application/pdf"
        assert headers["X-Gateway-Content-Disposition"].startswith("attachment")
        events = await gateway.settled()
        assert [event["type"] for event in events] == ["download.allowed", "download.finished"]
        allowed = events[0]
        assert (allowed["front"], allowed["client.address"]) == ("auth", "198.51.100.7")
        assert (allowed["http.response.status_code"], allowed["bytes.asked"]) == ("206", "10")
        assert (allowed["counted"], allowed["campaign"]) == ("1", "utm_source=mail")


async def test_head_and_a_range_outside_the_file_cost_nothing(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        path = f"/d/{gateway.token('a.bin', downloads=1)}"
        assert (await ask(gateway, traefik(path, "HEAD")))[0] == 200
        outside = {"Range": "bytes=1000-"}
        status, headers, _ = await ask(gateway, traefik(path, **outside))
        assert (status, headers["Content-Range"]) == (416, "bytes */1000")
        assert "X-Gateway-File" not in headers
        # The proxy would send the whole of it: then it is paid for, and no 416.
        other_version = {**outside, "If-Range": '"another"'}
        assert (await ask(gateway, traefik(path, **other_version)))[0] == 200
        assert await gateway.used() == 1


async def test_a_condition_that_leads_to_no_bytes_is_answered_here_for_nothing(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        path = f"/d/{gateway.token('a.bin', downloads=1)}"
        _, headers, _ = await ask(gateway, traefik(path, "HEAD"))
        for more, expected in (
            ({"If-None-Match": headers["ETag"]}, 304),
            ({"If-Match": '"another"'}, 412),
            ({"If-Match": headers["ETag"]}, 200),
        ):
            status, told, _ = await ask(gateway, traefik(path, **more))
            assert (status, "X-Gateway-File" in told) == (expected, expected == 200)
        assert await gateway.used() == 1


@pytest.mark.parametrize(
    ("status", "reason", "query"),
    [(403, "token.malformed", ""), (403, "token.malformed", "?statuses=all")],
)
async def test_no_tells_status_and_reason_and_counts_in_the_metrics(
    open_gateway, status: int, reason: str, query: str
) -> None:
    async with open_gateway(DOORS) as gateway:
        before = REFUSALS.labels(reason)._value.get()
        asked, headers, body = await ask(gateway, traefik("/d/abc"), query)
        assert (asked, headers["X-Gateway-Reason"], headers["X-Gateway-Status"]) == (status, reason, "403")
        assert reason.encode() in body
        assert REFUSALS.labels(reason)._value.get() == before + 1


async def test_while_draining_a_refusal_has_its_event_and_says_when_to_come_back(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        gateway.status.draining = True
        status, headers, _ = await ask(gateway, traefik(f"/d/{gateway.token('a.bin')}"))
        assert (status, headers["X-Gateway-Reason"], headers["Retry-After"]) == (503, "draining", "2")
        (event,) = await gateway.settled()
        assert (event["type"], event["reason"], event["front"]) == ("download.denied", "draining", "auth")


async def test_what_the_store_cannot_locate_is_not_charged(open_gateway, monkeypatch) -> None:
    async def fail(*_: object) -> None:
        raise OriginDown("no credentials")

    monkeypatch.setattr("gateway.backends.files.FolderStore.locate", fail)
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        status, headers, _ = await ask(gateway, traefik(f"/d/{gateway.token('a.bin', downloads=1)}"))
        assert (status, headers["X-Gateway-Reason"]) == (502, "origin.down")
        (event,) = await gateway.settled()
        assert (event["type"], event["reason"]) == ("download.denied", "origin.down")
        assert await gateway.used() == 0


async def test_the_true_status_is_told_to_those_who_pass_it_on(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        path = f"/d/{gateway.token('none.bin')}"
        for query, status in (("?statuses=all", 404), ("", 403), ("?statuses=some", 403)):
            asked, headers, _ = await ask(gateway, traefik(path), query)
            assert (asked, headers["X-Gateway-Status"], headers["X-Gateway-Reason"]) == (status, "404", "file.missing")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Original-Uri": "/d/{other}"},
        {"X-Original-Url": "/d/{other}"},
        {"X-Original-Method": "HEAD"},
    ],
)
async def test_what_names_the_request_must_do_so_in_one_voice(open_gateway, headers: dict[str, str]) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        other = gateway.token("a.bin")
        more = {name: value.format(other=other) for name, value in headers.items()}
        asked, answered, _ = await ask(gateway, traefik(f"/d/{gateway.token('a.bin')}", **more))
        assert (asked, answered["X-Gateway-Reason"]) == (400, "auth.request")
        assert not await gateway.events()


async def test_of_several_ranges_the_whole_is_handed_over(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        assert (await ask(gateway, traefik(f"/d/{gateway.token('a.bin')}", Range="bytes=0-9,20-29")))[0] == 200
        allowed, _ = await gateway.settled()
        assert (allowed["http.response.status_code"], allowed["bytes.asked"]) == ("200", "1000")


@pytest.mark.parametrize(
    "target", ["/l/{token}", "/z/{token}", "/auth", "//d/{token}", "/%64/{token}", "d/{token}", ""]
)
async def test_only_downloads_can_be_asked_for(open_gateway, target: str) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        path = target.format(token=gateway.token("a.bin"))
        asked, headers, _ = await ask(gateway, traefik(path))
        assert asked in (400, 404)
        assert "X-Gateway-File" not in headers
        asked, headers, _ = await ask(gateway, traefik(f"/d/{gateway.token('a.bin')}", "POST"))
        assert asked == 404


async def test_who_may_not_ask_learns_nothing_and_the_log_says_so_once(open_gateway, caplog) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 1000)
        good = traefik(f"/d/{gateway.token('a.bin')}")
        for wrong in ("", "wrong", SECRET[:-1], f"{SECRET}, {SECRET}"):
            asked, headers, _ = await ask(gateway, {**good, "X-Gateway-Secret": wrong})
            assert asked == 403
            assert not [name for name in headers if name.lower().startswith("x-gateway")]
        assert not await gateway.events()
    (said,) = [record.message for record in caplog.records if "doors.secret" in record.message]
    assert SECRET not in said


async def test_without_a_secret_it_decides_and_tells_nobody_where_bytes_lie(open_gateway) -> None:
    async with open_gateway() as gateway:
        gateway.file("a.bin", 1000)
        good = traefik(f"/d/{gateway.token('a.bin', downloads=1)}")
        for shown in (SECRET, ""):
            asked, headers, _ = await ask(gateway, {**good, "X-Gateway-Secret": shown})
            assert (asked, headers["X-Gateway-Status"]) == (200, "200")
            assert not {"x-gateway-file", "x-gateway-path", "x-gateway-origin"} & {name.lower() for name in headers}
        assert await gateway.used() == 1
        asked, headers, _ = await ask(gateway, traefik("/d/forged"), "")
        assert (asked, headers["X-Gateway-Status"], headers["X-Gateway-Reason"]) == (403, "403", "token.malformed")


async def test_the_refusal_that_was_told_is_shown_and_nothing_is_decided(open_gateway, caplog) -> None:
    async with open_gateway(DOORS) as gateway:

        async def shown(**told: str) -> tuple[int, Mapping[str, str], str]:
            headers = {f"X-Gateway-{name.replace('_', '-')}": value for name, value in told.items()}
            async with gateway.client.get(f"{gateway.base}/auth/refused", headers=headers) as response:
                return response.status, response.headers, await response.text()

        status, headers, body = await shown(Secret=SECRET, Reason="redis.down", Retry_After="2", Request_Id="abc-1")
        assert (status, headers["Retry-After"], headers["X-Request-Id"]) == (503, "2", "abc-1")
        assert "redis.down" in body
        assert "the proxy did not get the bytes" not in caplog.text
        status, _, body = await shown(Secret=SECRET, Request_Id="abc-2")
        assert (status, json.loads(body)["reason"]) == (502, "origin.down")
        assert "not counted" not in body, "it was"
        assert "request abc-2: the proxy did not get the bytes" in caplog.text
        assert (await shown(Secret=SECRET, Reason="internal"))[0] == 500
        said = await shown(Secret=SECRET, Reason="rule.denied", Message="Za%C5%BC%C3%B3%C5%82%C4%87%0D%0A")
        assert json.loads(said[2])["detail"].strip() == "Zażółć"
        status, headers, body = await shown(Secret=SECRET, Reason="<b>", Retry_After="x", Request_Id="<i>")
        assert (status, "Retry-After" in headers, headers["X-Request-Id"] == "<i>") == (400, False, False)
        assert (await shown(Reason="redis.down"))[0] == 403
        assert not await gateway.events()


async def test_guesses_are_throttled_here_as_at_every_door(open_gateway) -> None:
    async with open_gateway(DOORS) as gateway:
        gateway.file("a.bin", 10)
        answers = [(await ask(gateway, traefik("/d/junk"))) for _ in range(62)]
        assert [status for status, _, _ in answers] == [403] * 60 + [429] * 2
        assert answers[-1][1]["X-Gateway-Reason"] == "throttled"
        assert 1 <= int(answers[-1][1]["Retry-After"]) <= 60
        assert (await ask(gateway, traefik(f"/d/{gateway.token('a.bin')}")))[0] == 200
