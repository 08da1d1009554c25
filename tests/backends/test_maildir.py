"""Mails that are put into a folder are whole there, and a folder that cannot be written loses none."""

from __future__ import annotations

import asyncio
import mailbox
import os
from pathlib import Path

from gateway.backends.maildir import MaildirPostman

MESSAGE = b"Subject: Za\xc5\xbc\xc3\xb3\xc5\x82\xc4\x87\r\n\r\nFrom here\r\n.\r\n"


async def test_a_mail_is_put_into_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "shop"
    posted = await MaildirPostman(folder).post(MESSAGE, sender="shop@example.com", to="buyer@example.com")
    assert posted.outcome == "accepted"
    (message,) = mailbox.Maildir(folder)
    assert (message["Delivered-To"], message["Return-Path"]) == ("buyer@example.com", "<shop@example.com>")
    assert message.get_payload(decode=True).splitlines() == [b"From here", b"."]


async def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "mails" / "shop"
    before = os.umask(0o022)
    try:
        await MaildirPostman(folder).post(MESSAGE, sender="shop@example.com", to="buyer@example.com")
    finally:
        os.umask(before)
    made = {str(each.relative_to(tmp_path)): oct(each.stat().st_mode & 0o777) for each in (folder, *folder.iterdir())}
    assert made == dict.fromkeys(("mails/shop", "mails/shop/tmp", "mails/shop/new", "mails/shop/cur"), "0o700")
    assert folder.parent.stat().st_mode & 0o777 == 0o755, "as mkdir makes it"


async def test_what_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    posted = await MaildirPostman(tmp_path / "file" / "shop").post(MESSAGE, sender="a@example.com", to="b@example.com")
    assert posted.outcome == "later"
    assert "cannot be written" in posted.answer


async def test_many_processes_make_the_folder_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    said = await asyncio.gather(
        *(MaildirPostman(folder).post(MESSAGE, sender="shop@example.com", to="ada@example.com") for _ in range(20))
    )
    assert {posted.outcome for posted in said} == {"accepted"}
    assert len(list((folder / "new").iterdir())) == 20
