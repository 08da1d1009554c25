"""Delivery reports as mail servers write them, and as nobody should."""

from __future__ import annotations

import random

import pytest

from gateway.mail.bounces import REPORT_BYTES_MAX, Report, read_report

ID = "0a1b2c3d4e5f0a1b2c3d4e5f"
RETURNED = f"From: shop@example.com\r\nMessage-ID: <{ID}@example.com>\r\nSubject: Sea\r\n"
FAILED = (
    "Final-Recipient: rfc822; jan@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Remote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 <jan@example.net>:\r\n    user unknown\r\n"
)
DELAYED = FAILED.replace("failed", "delayed").replace("5.1.1", "4.4.1").replace("550", "451")


def report(
    *recipients: str,
    to: str = f"bounces+{ID}@example.com",
    returned: str = RETURNED,
    returned_type: str = "text/rfc822-headers",
    status_type: str = "message/delivery-status",
) -> bytes:
    status = "\r\n".join(
        ["Reporting-MTA: dns; mx.example.com\r\nArrival-Date: Sat, 21 Nov 2026 02:30:05 +0000\r\n", *recipients]
    )
    return (
        f"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.com\r\nTo: {to}\r\nSubject: Undelivered Mail\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary="=_b"\r\n\r\n'
        "--=_b\r\nContent-Type: text/plain\r\n\r\nI am sorry.\r\n\r\n"
        f"--=_b\r\nContent-Type: {status_type}\r\n\r\n{status}\r\n"
        f"--=_b\r\nContent-Type: {returned_type}\r\n\r\n{returned}\r\n--=_b--\r\n"
    ).encode()


def test_a_failure_is_known_by_the_address_it_came_to() -> None:
    found = read_report(report(FAILED, returned="From: x\r\n"))
    assert found == Report(ID, "failed", "5.1.1", "550 5.1.1 <jan@example.net>: user unknown")
    assert "jan@" not in repr(found)


@pytest.mark.parametrize("kind", ["text/rfc822-headers", "message/rfc822", "message/global", "message/global-headers"])
def test_or_by_the_mail_that_it_sends_back(kind: str) -> None:
    body = RETURNED + "\r\nbody\r\n" if kind in {"message/rfc822", "message/global"} else RETURNED
    found = read_report(report(FAILED, to="shop@example.com", returned=body, returned_type=kind))
    assert isinstance(found, Report)
    assert found.mail_id == ID


def test_or_by_what_the_mail_system_tells() -> None:
    content = report(FAILED, to="shop@example.com", returned="From: x\r\n")
    assert isinstance(read_report(content), str)
    assert isinstance(read_report(content, f"bounces+{ID}@example.com"), Report)


def test_a_delay_is_no_failure() -> None:
    found = read_report(report(DELAYED))
    assert isinstance(found, Report)
    assert (found.action, found.status) == ("delayed", "4.4.1")


def test_of_several_recipients_a_failure_counts() -> None:
    found = read_report(report(DELAYED, FAILED))
    assert isinstance(found, Report)
    assert found.action == "failed"


def test_a_report_in_utf8_is_read_too() -> None:
    failed = FAILED.replace("rfc822; jan", "utf-8; żółć").replace("user unknown", "nieznany użytkownik żółć")
    found = read_report(report(failed, status_type="message/global-delivery-status"))
    assert isinstance(found, Report)
    assert found.action == "failed"
    assert "nieznany" in found.diagnostic


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", "", "nonsense"])
def test_good_news_changes_nothing(action: str) -> None:
    assert "no delivery report" in str(read_report(report(FAILED.replace("failed", action))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"Subject: Out of office\r\n\r\nI am at sea.",
        b"Content-Type: multipart/report; boundary=a\r\n\r\n--a\r\n",
        b"Content-Type: message/delivery-status\r\n\r\n",
        b"Content-Type: multipart/report\r\n\r\nno boundary",
        b"Content-Type: text/plain; charset=\xff\xfe\r\n\r\n\xff",
        report(FAILED, to="shop@example.com", returned="Message-ID: <x y@z>\r\n"),
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 5000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(4000)),
        b"To: " + b"<" * 200_000,
        b"A:" * 100_000,
        b"\r\n".join([b"X: y"] * 60_000),
        b"Content-Type: multipart/report; boundary*0*=" + b"%" * 100_000,
    ],
    ids=range(14),
)
def test_what_is_no_report_of_ours_changes_nothing(content: bytes) -> None:
    assert isinstance(read_report(content), str)


def test_a_long_report_is_read_in_front() -> None:
    found = read_report(report(FAILED, returned=RETURNED + "x: y\r\n" * 200_000))
    assert isinstance(found, Report)
    assert isinstance(read_report(b"X: y\r\n" * REPORT_BYTES_MAX + report(FAILED)), str)


def test_whatever_is_changed_in_a_report_it_is_read_or_it_is_not() -> None:
    random_ = random.Random(5)
    whole = report(DELAYED, FAILED)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(random_.randint(1, 20)):
            at = random_.randrange(len(content))
            content[at : at + random_.randint(0, 30)] = random_.randbytes(random_.randint(0, 8))
        found = read_report(bytes(content))
        assert isinstance(found, str) or found.action in {"failed", "delayed"}
