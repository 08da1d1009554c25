"""Mails put into a folder instead of being sent: for trying a shop out, with any program that reads a Maildir.

A message is whole when it appears, since it is renamed into its place (https://cr.yp.to/proto/maildir.html).
"""

from __future__ import annotations

import asyncio
import mailbox
from pathlib import Path

from gateway.order_ports import Posted

_ROOMS = ("tmp", "new", "cur")


class MaildirPostman:
    """gateway.order_ports.Postman into the Maildir at this path, which is made where it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def post(self, message: bytes, *, sender: str, to: str) -> Posted:
        """See Postman.post. The envelope is written down in two headers of its own."""
        envelope = f"Return-Path: <{sender}>\r\nDelivered-To: {to}\r\n".encode()
        try:
            await asyncio.to_thread(self._put, envelope + message)
        except OSError as error:
            return Posted("later", f"the folder cannot be written: {error.strerror}")
        return Posted("accepted", f"put into {self._path}")

    def _put(self, message: bytes) -> None:
        # As mailbox.Maildir would make them, which fails beside another process that makes them too.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self._path, *(self._path / room for room in _ROOMS)):
            folder.mkdir(mode=0o700, exist_ok=True)
        mailbox.Maildir(self._path, create=False).add(message)
