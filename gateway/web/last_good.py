"""The last good files, held by the supervisor: a worker that starts while a file is bad begins with them.

They travel as descriptors of memory (SCM_RIGHTS, unix(7)): nothing is copied, nothing lies on a disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress

LOG = logging.getLogger("gateway.web")
VARIABLE = "DOWNLOAD_GATEWAY_LAST_GOOD"
_MESSAGE_MAX = 64 * 1024
_FILES_MAX = 16
_PATIENCE = 2.0

Held = dict[str, dict[str, int]]


class LastGood:
    """The supervisor's end of the channel, and what has come through it, by `what` and the file's name."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self._held: Held = {}

    def start(self) -> None:
        """Take what comes, on the running loop."""
        asyncio.get_running_loop().add_reader(self._ours.fileno(), self._receive)

    def close(self) -> None:
        """In the same loop."""
        asyncio.get_running_loop().remove_reader(self._ours.fileno())
        self._ours.close()
        self._theirs.close()
        for what in list(self._held):
            self._hold(what, {})

    def descriptors(self) -> tuple[int, ...]:
        """What a worker is to inherit."""
        return (self._theirs.fileno(), *(number for copies in self._held.values() for number in copies.values()))

    def environment(self) -> dict[str, str]:
        """What tells a worker which is which."""
        return {VARIABLE: json.dumps({"channel": self._theirs.fileno(), "held": self._held})}

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            message, descriptors, flags, _ = socket.recv_fds(self._ours, _MESSAGE_MAX, _FILES_MAX)
            try:
                what, names = json.loads(message)
                copies = dict(zip(names, descriptors, strict=True))
            except (ValueError, TypeError):
                LOG.error("a worker's last good files were not understood (%d bytes, flags %d)", len(message), flags)
                for number in descriptors:
                    os.close(number)
            else:
                self._hold(what, copies)

    def _hold(self, what: str, copies: dict[str, int]) -> None:
        for number in self._held.pop(what, {}).values():
            os.close(number)
        if copies:
            self._held[what] = copies


class Inherited:
    """The worker's end: a Keeper. Without a supervisor that holds anything it keeps and knows nothing."""

    def __init__(self) -> None:
        told = json.loads(os.environ.get(VARIABLE, "{}"))
        self._held: Held = told.get("held", {})
        self._channel: socket.socket | None = None
        self._sending = threading.Lock()
        if "channel" in told:
            self._channel = socket.socket(fileno=told["channel"])
            # The supervisor may be stopped, and its queue be full.
            self._channel.settimeout(_PATIENCE)

    def keep(self, what: str, copies: Mapping[str, int]) -> None:
        """See Keeper.keep."""
        if self._channel is None or not copies:
            return
        try:
            with self._sending:
                socket.send_fds(self._channel, [json.dumps([what, list(copies)]).encode()], list(copies.values()))
        except OSError as error:
            LOG.warning("the %s in force cannot be kept for workers to come: %s", what, error.strerror or "no answer")

    def kept(self, what: str) -> Mapping[str, int]:
        """See Keeper.kept."""
        return self._held.get(what, {})

    def release(self) -> None:
        """What was inherited is no longer needed."""
        for copies in self._held.values():
            for number in copies.values():
                os.close(number)
        self._held = {}

    def close(self) -> None:
        """Nothing is kept from here on."""
        self.release()
        if self._channel is not None:
            self._channel.close()
