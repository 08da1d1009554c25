"""Signing in with a provider that this project did not write: who gets in, who does not, and what strangers may try."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
import pytest
from accounts.people import Browser, Provider
from aiohttp import ClientResponse

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.redis_links import RedisLinks
from gateway.policy.keys import KeySet
from gateway.policy.model import Claims, FileEntry
from gateway.policy.orders import Buyer, Entitlement, IssuedLink, Line, Notice, Order, SoldFile
from gateway.policy.tokens import parse
from gateway.services.sessions import COOKIE as SESSION
from gateway.services.sessions import Sessions
from gateway.services.sign_ins import COOKIE as SIGN_IN

SECRET = "of sessions, for tests only, 40 characters"
SHARED = "of hand-overs, for tests only, 40 letters!"


@dataclass
class Shop:
    """A gateway with accounts, and the address that the provider sends browsers back to."""

    running: object
    base: str
    issuer: str

    def token(self, customer: str = "c-7", **changes: object) -> str:
        return self.running.token("sea.pdf", account=True, customer_id=customer, **changes)

    async def events(self) -> list[dict[str, str]]:
        return await self.running.settled()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
async def shop(open_gateway, provider: Provider) -> AsyncIterator[Shop]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    known = await provider.register(f"{base}/account/return")
    oidc = f'{{issuer: "{known.issuer}", client_id: "{known.client_id}", client_secret: "{known.secret}"}}'
    more = f'public_url: "{base}"\naccounts: {{secret: "{SECRET}", session: 1h, oidc: {oidc}}}\n'
    async with open_gateway(more, port=port) as running:
        running.file("sea.pdf", 1000)
        yield Shop(running, base, known.issuer)


async def sign_in(browser: Browser, shop: Shop, start: str, customer: str = "c-7") -> ClientResponse:
    """From an address of ours to the provider and back; the answer to the return."""
    away = await browser.get(start)
    assert away.status == 302
    back = await browser.sign_in_at(away.headers["Location"], customer, f"{shop.base}/account/return")
    return await browser.get(back)


def button(page: str) -> str:
    found = re.search(r'class="button wide" href="([^"]+)"', page)
    assert found is not None, page
    return found[1].replace("&amp;", "&")


async def test_a_buyer_signs_in_from_the_link_and_gets_the_file(shop: Shop, browser: Browser) -> None:
    link = f"{shop.base}/l/{shop.token()}"
    refused = await browser.get(link)
    assert refused.status == 401
    away = shop.base + button(await refused.text())
    assert away == f"{link}?sign-in"
    back = await sign_in(browser, shop, away)
    assert (back.status, shop.base + back.headers["Location"]) == (303, link)
    assert not browser.cookies(SIGN_IN)
    page = await browser.get(link)
    assert page.status == 200
    got = await browser.get(link.replace("/l/", "/d/"))
    assert (got.status, len(await got.read())) == (200, 1000)
    allowed = [event for event in await shop.events() if event["type"] == "download.allowed"]
    assert [event["account"] for event in allowed] == ["c-7"]


async def test_the_cookies_are_for_this_host_alone(shop: Shop, browser: Browser) -> None:
    away = await browser.get(f"{shop.base}/account/sign-in")
    back = await browser.get(await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return"))
    told = away.headers.getall("Set-Cookie") + back.headers.getall("Set-Cookie")
    assert len(told) == 3
    for cookie in told:
        name, *attributes = [part.strip() for part in cookie.split(";")]
        assert name.startswith("__Host-gw_")
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= {*attributes}
        assert not any(attribute.startswith("Domain") for attribute in attributes)


async def test_what_is_asked_of_the_provider(shop: Shop, browser: Browser) -> None:
    token = shop.token()
    away = await browser.get(f"{shop.base}/l/{token}?sign-in")
    asked = dict(parse_qsl(urlsplit(away.headers["Location"]).query))
    assert away.headers["Location"].startswith(f"{shop.issuer}/oauth/authorize?")
    assert asked["redirect_uri"] == f"{shop.base}/account/return"
    assert (asked["response_type"], asked["scope"], asked["code_challenge_method"]) == ("code", "openid", "S256")
    assert token not in away.headers["Location"]
    assert away.headers["Referrer-Policy"] == "no-referrer"
    assert away.headers["Cache-Control"] == "private, no-store"


async def test_another_customer_is_refused_and_may_use_another_account(shop: Shop, browser: Browser) -> None:
    link = f"{shop.base}/l/{shop.token('c-8')}"
    await sign_in(browser, shop, f"{link}?sign-in", "c-7")
    refused = await browser.get(link)
    page = await refused.text()
    assert refused.status == 403
    assert "account.other" in page
    assert "form-action 'self'" in refused.headers["Content-Security-Policy"]
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)">', page))
    out = await browser.post(f"{shop.base}/account/sign-out", form)
    assert out.status == 200
    assert not browser.cookies(SESSION)
    anew = shop.base + button(await out.text())
    assert anew == f"{link}?sign-in=other"
    away = await browser.get(anew)
    assert dict(parse_qsl(urlsplit(away.headers["Location"]).query))["prompt"] == "login"


async def test_nobody_else_can_sign_somebody_out(shop: Shop, browser: Browser) -> None:
    await sign_in(browser, shop, f"{shop.base}/account/sign-in")
    for form in ({}, {"key": "0" * 32}, {"key": "ö"}):
        assert (await browser.post(f"{shop.base}/account/sign-out", form)).status == 400
    assert (await browser.get(f"{shop.base}/account/sign-out")).status == 405
    assert browser.cookies(SESSION)


async def test_programs_are_told_where_to_sign_in(shop: Shop) -> None:
    client = shop.running.client
    async with client.get(f"{shop.base}/d/{shop.token()}") as refused:
        said = await refused.json(content_type=None)
    assert (refused.status, said["reason"], said["sign_in"]) == (
        401,
        "account.required",
        f"{shop.base}/account/sign-in",
    )


@pytest.mark.parametrize(
    "to",
    ["//evil.example", "/\\evil.example", "https://evil.example/", "/l/../../evil", "/d/x", "/account/sign-out", ""],
)
async def test_nobody_is_led_elsewhere(shop: Shop, browser: Browser, to: str) -> None:
    out = await browser.post(f"{shop.base}/account/sign-out", {"to": to})
    assert button(await out.text()) == "/account/sign-in?sign-in=other"
    away = await browser.get(f"{shop.base}/account/sign-in?{urlencode({'to': to, 'return_to': to, 'next': to})}")
    back = await browser.get(await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return"))
    assert back.headers["Location"] == "/account"


async def test_a_return_that_did_not_begin_here_signs_nobody_in(shop: Shop, browser: Browser) -> None:
    """Login CSRF: a stranger's own code, brought to somebody else's browser."""
    away = await browser.get(f"{shop.base}/account/sign-in")
    back = await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return")
    async with (victim := Browser()).client:
        for address in (back, f"{shop.base}/account/return", f"{shop.base}/account/return?state=x&code=y"):
            lost = await victim.get(address)
            assert lost.status == 400
            assert "sign_in.lost" in await lost.text()
        await victim.get(f"{shop.base}/account/sign-in")  # one of its own does not help
        assert (await victim.get(back)).status == 400
        assert not victim.cookies(SESSION)


async def test_a_code_is_redeemed_once(shop: Shop, browser: Browser) -> None:
    away = await browser.get(f"{shop.base}/account/sign-in")
    cookie = browser.cookies(SIGN_IN)
    back = await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return")
    assert (await browser.get(back)).status == 303
    # A reload of somebody who is signed in is no mistake of theirs.
    assert (await browser.get(back)).headers["Location"] == "/account"
    async with (thief := Browser()).client:
        [(name, value)] = cookie.items()
        answer = await thief.client.get(back, headers={"Cookie": f"{name}={value}"}, allow_redirects=False)
        assert answer.status == 403
        assert "sign_in.refused" in await answer.text()


async def test_two_tabs_may_both_sign_in(shop: Shop, browser: Browser) -> None:
    links = [f"{shop.base}/l/{shop.token(token_id=name)}" for name in ("one", "two")]
    aways = [await browser.get(f"{link}?sign-in") for link in links]
    assert len(browser.cookies(SIGN_IN)) == 2
    for link, away in zip(links, aways, strict=True):
        back = await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return")
        assert shop.base + (await browser.get(back)).headers["Location"] == link


async def test_a_browser_does_not_fill_up_with_cookies(shop: Shop, browser: Browser) -> None:
    for _ in range(12):
        await browser.get(f"{shop.base}/account/sign-in")
    assert len(browser.cookies(SIGN_IN)) <= 5


@pytest.mark.parametrize("error", ["access_denied", "login_required", "<script>", "x" * 500])
async def test_a_provider_that_says_no_is_explained(
    shop: Shop, browser: Browser, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = f"{shop.base}/l/{shop.token()}"
    away = await browser.get(f"{link}?sign-in")
    state = dict(parse_qsl(urlsplit(away.headers["Location"]).query))["state"]
    said = {"state": state, "error": error, "error_description": "<b>evil</b>", "iss": shop.issuer}
    refused = await browser.get(f"{shop.base}/account/return?{urlencode(said)}")
    page = await refused.text()
    assert refused.status == 403
    assert button(page) == f"/l/{link.rpartition('/')[2]}?sign-in"
    assert "evil" not in page + caplog.text
    assert "<script>" not in page + caplog.text
    assert not browser.cookies(SIGN_IN)


async def test_a_session_is_genuine_or_none(shop: Shop, browser: Browser) -> None:
    await sign_in(browser, shop, f"{shop.base}/account/sign-in")
    [(name, value)] = browser.cookies(SESSION).items()
    head, payload, signature = value.split(".")
    other = jwt.encode(jwt.decode(value, options={"verify_signature": False}), "o" * 32, algorithm="HS256")
    none = jwt.encode(jwt.decode(value, options={"verify_signature": False}), None, algorithm="none")
    sign_in_cookie = jwt.encode({"aud": "download-gateway-sign-in", "sub": "c-7"}, "o" * 32)
    client = shop.running.client
    link = f"{shop.base}/l/{shop.token()}"

    async def status(cookie: str) -> int:
        async with client.get(link, headers={"Cookie": cookie, "Accept": "text/html"}) as answer:
            return int(answer.status)

    assert await status(f"{name}={value}") == 200
    for wrong in (other, none, sign_in_cookie, f"{head}.{payload}.{signature[:-2]}xx", f"{value}.", "", "x"):
        assert await status(f"{name}={wrong}") == 401, wrong
    assert await status(f"{name}={value}; {name}={value}") == 401


async def test_nothing_secret_is_in_logs_and_events(
    shop: Shop, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    token = shop.token()
    away = await browser.get(f"{shop.base}/l/{token}?sign-in")
    cookies = [*browser.cookies(SIGN_IN).values()]
    back = await browser.sign_in_at(away.headers["Location"], "c-7", f"{shop.base}/account/return")
    await browser.get(back)
    cookies += [*browser.cookies(SESSION).values()]
    await browser.get(f"{shop.base}/l/{token}")
    await browser.get(f"{shop.base}/account/return?code=stolen-code&state=stolen-state")
    asked = dict(parse_qsl(urlsplit(back).query)) | dict(parse_qsl(urlsplit(away.headers["Location"]).query))
    told = caplog.text + str(await shop.events())
    for secret in (token, SECRET, asked["code"], asked["state"], asked["nonce"], "stolen", *cookies):
        assert secret not in told


async def test_a_provider_that_is_away_is_said_to_be(
    open_gateway, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    base = f"http://127.0.0.1:{free_port()}"
    oidc = f'{{issuer: "http://127.0.0.1:{free_port()}", client_id: us}}'
    port = int(base.rpartition(":")[2])
    more = f'public_url: "{base}"\naccounts: {{secret: "{SECRET}", oidc: {oidc}}}\n'
    async with open_gateway(more, port=port):
        began = time.monotonic()
        down = await browser.get(f"{base}/o/10001")
        assert (down.status, down.headers["Retry-After"]) == (503, "30")
        assert "sign_in.down" in await down.text()
        assert button(await down.text()) == "/o/10001?sign-in"
        assert time.monotonic() - began < 2
        assert "cannot be reached" in caplog.text


async def test_without_accounts_there_is_no_such_address(gateway, browser: Browser) -> None:
    for path in ("/o/10001", "/account/sign-in", "/account/return", "/account/enter"):
        assert (await browser.get(gateway.base + path)).status == 404
    refused = await browser.get(f"{gateway.base}/l/{gateway.token('sea.pdf', account=True)}")
    assert refused.status == 401
    assert "button" not in (await refused.text()).partition("<main>")[2]


async def test_the_short_address_asks_for_the_account_first(shop: Shop, browser: Browser) -> None:
    claims = parse(shop.token(token_id="t-7"), KeySet([shop.running.key]), "shop.example.com")
    assert isinstance(claims, Claims)
    links = RedisLinks(shop.running.wire, 1)
    await links.add(claims, 1)
    await links.add(replace(claims, customer_id="c-8", token_id="t-8"), 1)
    for name in ("t-7", "unknown", "a%2Fb"):
        away = await browser.get(f"{shop.base}/o/{name}")
        assert away.status == 302
        assert away.headers["Location"].startswith(shop.issuer)
    back = await sign_in(browser, shop, f"{shop.base}/o/t-7")
    assert back.headers["Location"] == "/o/t-7"
    there = await browser.get(f"{shop.base}/o/t-7")
    assert there.status == 303
    assert (await browser.get(shop.base + there.headers["Location"])).status == 200
    assert (await browser.post(f"{shop.base}/o/t-7", {})).status == 405
    pages = []
    for name in ("t-8", "t-x"):
        refused = await browser.get(f"{shop.base}/o/{name}")
        assert refused.status == 403
        page = await refused.text()
        assert "account.other" in page
        pages.append(page.replace(name, "…").replace(refused.headers["X-Request-Id"], "…"))
    assert pages[0] == pages[1]
    office = {"X-Forwarded-For": "192.0.2.7"}
    for _ in range(60):
        assert (await browser.get(f"{shop.base}/o/99999", **office)).status == 403
    over = await browser.get(f"{shop.base}/o/99999", **office)
    assert (over.status, over.headers["Retry-After"]) == (429, "60")
    assert (await browser.get(f"{shop.base}/o/t-7", **office)).status == 303, "his own is served all the while"


@pytest.fixture
async def handed(open_gateway) -> AsyncIterator[Shop]:
    """A gateway whose shop hands its customers over."""
    base = f"http://127.0.0.1:{free_port()}"
    handover = f'{{login_url: "https://shop.example.com/in", issuer: shop.example.com, secret: "{SHARED}"}}'
    more = f'public_url: "{base}"\naccounts: {{secret: "{SECRET}", handover: {handover}}}\n'
    async with open_gateway(more, port=int(base.rpartition(":")[2])) as running:
        running.file("sea.pdf", 1000)
        yield Shop(running, base, "https://shop.example.com")


def hand_over(**changes: object) -> str:
    """What the shop's page signs."""
    now = int(time.time())
    claims = {"iss": "shop.example.com", "aud": "download-gateway-account", "sub": "c-7", "iat": now, "exp": now + 60}
    return jwt.encode({**claims, "jti": token_urlsafe(9), **changes}, SHARED, algorithm="HS256")


async def test_a_shop_hands_its_customer_over(handed: Shop, browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    link = f"{handed.base}/l/{handed.token()}"

    async def begin() -> dict[str, str]:
        away = urlsplit((await browser.get(f"{link}?sign-in")).headers["Location"])
        assert (away.netloc, away.path) == ("shop.example.com", "/in")
        return dict(parse_qsl(away.query))

    asked = await begin()
    assert asked["return_to"] == f"{handed.base}/account/enter"
    other = {"state": asked["state"], "handover": hand_over(nonce="o" * 24)}
    assert (await browser.get(f"{handed.base}/account/enter?{urlencode(other)}")).status == 403

    asked = await begin()
    signed = hand_over(nonce=asked["state"])
    enter = f"{handed.base}/account/enter?{urlencode({'state': asked['state'], 'handover': signed})}"
    async with (thief := Browser()).client:
        assert (await thief.get(enter)).status == 400
    cookies = browser.cookies(SIGN_IN)
    back = await browser.get(enter)
    assert handed.base + back.headers["Location"] == link
    assert (await browser.get(link)).status == 200
    again = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    async with handed.running.client.get(enter, headers=again) as used:
        assert used.status == 403
    assert signed not in caplog.text
    assert "used before" in caplog.text


async def test_nobody_is_handed_over_who_did_not_ask(handed: Shop, browser: Browser) -> None:
    """Else anybody could sign a stranger in with an account of his own."""
    for claims in ({}, {"nonce": "o" * 24}):
        enter = f"{handed.base}/account/enter?{urlencode({'handover': hand_over(**claims)})}"
        back = await browser.get(enter)
        assert (back.status, browser.cookies(SESSION)) == (400, {})
    # The provider's way in is closed where there is none.
    assert (await browser.get(f"{handed.base}/account/return?code=x&state=y")).status == 404


async def test_a_proxy_that_asks_is_told_by_the_session(shop: Shop, browser: Browser) -> None:
    await sign_in(browser, shop, f"{shop.base}/account/sign-in")
    [(name, value)] = browser.cookies(SESSION).items()
    headers = {"X-Forwarded-Uri": f"/d/{shop.token()}", "X-Forwarded-Method": "GET", "X-Forwarded-For": "192.0.2.7"}
    client = shop.running.client
    for cookie, status in ((f"{name}={value}", 200), ("", 401)):
        async with client.get(f"{shop.base}/auth", headers={**headers, "Cookie": cookie}) as answer:
            assert answer.status == status


async def test_an_orders_short_address_leads_to_its_link(open_gateway, tmp_path: Path, browser: Browser) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    now = int(time.time())
    link = IssuedLink("t1", ("l1",), (FileEntry("sea.pdf"),), now - 10, now + 600, account=True)
    said = Notice("1", 1, paid=True, buyer=Buyer("ann@example.com", "Ann", "c-7"), lines=(Line("l1"),))
    sold = Entitlement("l1", "Sea", (SoldFile(FileEntry("sea.pdf")),), granted_at=1, account=True)
    order = replace(Order("main-1", "main", "1").heard(said), entitlements=(sold,), links=(link,))
    book = SqlOrderBook(url)
    await book.open()
    async with book.change("main-1") as draft:
        draft.order = order
    await book.close()
    oidc = "{issuer: 'http://127.0.0.1:1', client_id: us}"
    more = f'orders: {{url: "{url}"}}\nshops: [{{name: main, kind: shopify, secrets: [{SECRET}]}}]\n'
    more += f'public_url: "http://127.0.0.1:9"\naccounts: {{secret: "{SECRET}", oidc: {oidc}}}\n'
    sessions = Sessions(SECRET, seconds=600)
    async with open_gateway(more) as running:
        running.file("sea.pdf", 1000)

        async def ask(path: str, customer: str) -> ClientResponse:
            cookie = sessions.begin(customer).partition(";")[0]
            headers = {"Cookie": cookie, "Accept": "text/html"}
            answer = await running.client.get(running.base + path, headers=headers, allow_redirects=False)
            await answer.read()
            return answer

        there = await ask("/o/main-1", "c-7")
        assert there.status == 303
        assert (await ask(there.headers["Location"], "c-7")).status == 200
        assert (await ask(there.headers["Location"], "c-8")).status == 403
        assert (await ask("/o/main-1", "c-8")).status == 403
        assert (await ask("/o/main-2", "c-7")).status == 403
