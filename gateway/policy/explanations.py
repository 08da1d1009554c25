"""What each refusal and each bad ending means to the people who answer buyers: whose matter it is, and what helps.

Every Reason has its line here; a test fails where one has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from gateway.policy.reasons import Reason

Side = Literal["buyer", "network", "gateway", "bucket", "mail", "rule"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """`text` goes on after "because"; it and `todo` may name {token} {order} {file} {rule}
    {by_rule} {address} {request} {event} {limit} {door}.

    `lasts`: it stays so until somebody does something; else trying again may help.
    """

    side: Side
    text: str
    todo: str
    lasts: bool = True


_NEW_LINK = "`gateway link create {new}` makes another link"
_WAIT = "nothing to do for the buyer: the same link works once it is over; look for {request} in the gateway's log"
_DOCTOR = "`gateway doctor` says what is wrong"
_WHOLE_LINK = "send the buyer the link again, as a button or on a line of its own; where it is lost, " + _NEW_LINK

REFUSED: Mapping[Reason, Explanation] = MappingProxyType(
    {
        Reason.ACCOUNT_REQUIRED: Explanation(
            "rule",
            "it may only be had by the customer, logged in{by_rule}",
            "ask the buyer to log in; where that is not wanted, change the rule, or: " + _NEW_LINK,
        ),
        Reason.TOKEN_MALFORMED: Explanation("mail", "the link was not whole, as mail programs leave it", _WHOLE_LINK),
        Reason.TOKEN_SIGNATURE: Explanation(
            "gateway",
            "the link was changed on its way, or signed with a key that the settings have not",
            "compare `keys` in the settings with the key the shop signs with; " + _WHOLE_LINK,
        ),
        Reason.TOKEN_CLAIMS: Explanation(
            "gateway",
            "the link says something that the gateway does not accept, such as a plan that the rules file has not or "
            "a host that is not in external_hosts",
            "`gateway link show {token}` shows what it says; correct the rules file or the settings, or: " + _NEW_LINK,
        ),
        Reason.TOKEN_NOT_YET: Explanation(
            "rule", "the link's time had not begun", "ask the buyer to wait, or: " + _NEW_LINK
        ),
        Reason.TOKEN_IP: Explanation(
            "rule",
            "the link is only for certain networks, or by its plan (`bind_ip: order`) for the one that it was ordered "
            "from, and {address} is in none of them",
            "`gateway link show {token}` shows them and the plan; ask the buyer to use one of them, or take `bind_ip` "
            "out of the plan, or: " + _NEW_LINK,
        ),
        Reason.DEVICE_CODE: Explanation(
            "rule",
            "the link's plan asks each device after the first one for a code, and this one had not entered it",
            "the code is sent to the order's address when the buyer asks for it on the page; is that address right? If "
            "not: `gateway order resend --to ADDRESS`",
        ),
        Reason.THROTTLED: Explanation(
            "network",
            "too many wrong tries came from the network of {address}",
            "it passes by itself within minutes, and genuine links of that network are served all the while",
        ),
        Reason.ACCOUNT_OTHER: Explanation(
            "buyer",
            "somebody was logged in to another account than the one that bought it",
            "ask the buyer to log in to the account of the order",
        ),
        Reason.ORDER_UNPAID: Explanation(
            "buyer",
            "the shop has not said that the order is paid, or not confirmed it",
            "see in the shop whether the payment has arrived; when the shop says so, the same link works",
        ),
        Reason.RULE_DENIED: Explanation(
            "rule",
            "the rule {rule} of the rules file refuses it",
            "if it should not, change the rule {rule}; it is in force within a second, and the same link then works",
        ),
        Reason.LIMIT_NETWORKS: Explanation(
            "buyer",
            "it was used from as many networks as it allows{limit}; a link that is passed on looks like this",
            "if it is the buyer travelling: " + _NEW_LINK,
        ),
        Reason.LIMIT_DEVICES: Explanation(
            "buyer",
            "it was used on as many devices as it allows{limit}; a link that is passed on looks like this",
            "if they are all the buyer's: " + _NEW_LINK,
        ),
        Reason.LIMIT_UNKEPT: Explanation(
            "gateway",
            "the link has a limit that the door it was used at{door} cannot keep",
            "`gateway rules explain --event {event}` says which limit; take it out of the plan, give the buyer the "
            "address of a door that keeps it (`gateway doors` shows which), or waive it at this door in the settings "
            "(doors, waive)",
        ),
        Reason.VIEW_NOT_ALLOWED: Explanation(
            "rule",
            "it was asked for to be shown in the browser, which its plan does not allow",
            "ask the buyer to download it; or write `view: true` in the plan",
        ),
        Reason.FILE_UNKNOWN: Explanation(
            "buyer",
            "the link has no file of that number: its end was changed or lost",
            _WHOLE_LINK,
        ),
        Reason.FILE_MISSING: Explanation(
            "bucket",
            "the bucket has no such file",
            "put the file {file} into the bucket under exactly this key, and the same link works; then "
            "`gateway doctor --file {file}`",
        ),
        Reason.LINK_UNKNOWN: Explanation("buyer", "there is no link of that name", _WHOLE_LINK),
        Reason.TOKEN_EXPIRED: Explanation(
            "buyer", "the link had expired", "`gateway link extend {token} --expires 7d` makes the same link good again"
        ),
        Reason.TOKEN_REVOKED: Explanation(
            "rule", "the link was revoked, which is final", "if that was a mistake: " + _NEW_LINK
        ),
        Reason.LIMIT_DOWNLOADS: Explanation(
            "buyer", "its downloads were used up{limit}", "to grant more: " + _NEW_LINK
        ),
        Reason.LIMIT_CONCURRENT: Explanation(
            "buyer",
            "more downloads at the same time were begun than it allows{limit}",
            "ask the buyer to let one finish before the next, and not to use several download programs at once",
            lasts=False,
        ),
        Reason.ORIGIN_DOWN: Explanation("bucket", "the bucket refused or could not be reached", _DOCTOR, lasts=False),
        Reason.ORIGIN_CHANGED: Explanation(
            "bucket",
            "the file was replaced in the bucket while it was being downloaded",
            "ask the buyer to download it anew, from the start; replace files of a running sale under a new key",
            lasts=False,
        ),
        Reason.ORIGIN_TIMEOUT: Explanation("bucket", "the bucket did not answer in time", _DOCTOR, lasts=False),
        Reason.REDIS_DOWN: Explanation("gateway", "Redis could not be asked", f"{_DOCTOR}; {_WAIT}", lasts=False),
        Reason.GEO_DOWN: Explanation(
            "gateway", "the geo data could not be used", f"{_DOCTOR}; replace the geo file it names", lasts=False
        ),
        Reason.ORDERS_DOWN: Explanation(
            "gateway", "the order book could not be asked", f"{_DOCTOR}; {_WAIT}", lasts=False
        ),
        Reason.FROZEN: Explanation(
            "gateway",
            "all downloads were stopped here (`gateway freeze`)",
            "nothing to do for the buyer: the same link works again after `gateway thaw`",
            lasts=False,
        ),
        Reason.OVERLOAD: Explanation(
            "gateway",
            "the gateway had more to do than it could",
            "nothing to do for the buyer: the same link works; if it comes often, add workers or machines",
            lasts=False,
        ),
        Reason.DRAINING: Explanation("gateway", "the gateway was being restarted", _WAIT, lasts=False),
    }
)

CUT: Mapping[str, Explanation] = MappingProxyType(
    {
        Reason.TOKEN_REVOKED.text: REFUSED[Reason.TOKEN_REVOKED],
        Reason.LIMIT_DOWNLOADS.text: REFUSED[Reason.LIMIT_DOWNLOADS],
        Reason.FROZEN.text: REFUSED[Reason.FROZEN],
        Reason.REDIS_DOWN.text: REFUSED[Reason.REDIS_DOWN],
        Reason.DRAINING.text: REFUSED[Reason.DRAINING],
        "ledger.gone": Explanation(
            "gateway", "the counts it belonged to were lost or closed", f"{_DOCTOR}; {_WAIT}", lasts=False
        ),
    }
)
"""Why an answer is cut in mid-body, by the closing event's reason. Any other is INTERNAL."""

INTERNAL = Explanation(
    "gateway", "of a fault in the gateway", "report it with what the log says of {request}", lasts=False
)
LOST = Explanation("gateway", "the process that sent it died", _WAIT, lasts=False)

LEFT_OFTEN = Explanation(
    "network",
    "the connection was closed again and again on the buyer's side",
    "ask the buyer to try another network or a download program; the same link goes on where it stopped",
    lasts=False,
)
LEFT_ONCE = Explanation(
    "buyer",
    "the buyer's program stopped or lost its connection",
    "ask the buyer to try again: the same link goes on where it stopped",
    lasts=False,
)
