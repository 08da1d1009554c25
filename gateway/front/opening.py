"""A link page opened: the gatekeeper's word and the page, as every front door gives them."""

from __future__ import annotations

from gateway.front.answers import Answers
from gateway.front.head import Head
from gateway.front.plain import Answer
from gateway.policy.model import DownloadRequest
from gateway.policy.reasons import Reason
from gateway.services.gatekeeper import Gatekeeper, Refused


async def open_link(gatekeeper: Gatekeeper, answers: Answers, head: Head, asked: DownloadRequest) -> Answer | Refused:
    """The page, or the only file's address; refused also where every file of the link is used up."""
    opened = await gatekeeper.open_link(asked)
    if isinstance(opened, Refused):
        return opened
    return await answers.link_page(head, asked, opened) or await gatekeeper.refuse(Reason.LIMIT_DOWNLOADS, asked)
