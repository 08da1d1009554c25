"""One class per condition: how it is written and whom it means. A new one is a class and its line in CONDITIONS."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.policy.conditions.base import Condition, OneOf
from gateway.policy.conditions.combined import All, Any, Not
from gateway.policy.conditions.places import Asn, Continent, Country, Ip, NetworkType, Region
from gateway.policy.conditions.requests import Customer, File, InPlan, Method, OfOrder, Tier, UserAgent
from gateway.policy.conditions.times import After, Before, Time

_ALL: tuple[type[Condition], ...] = (
    *(Ip, Country, Continent, Region, Asn, NetworkType),
    *(File, Tier, InPlan, OfOrder, Customer, UserAgent, Method),
    *(Time, Before, After),
    *(Any, All, Not),
)

CONDITIONS: Mapping[str, type[Condition]] = MappingProxyType({condition.key: condition for condition in _ALL})
"""By the key that they have in a `when:`."""

INDEXED = tuple(condition for condition in _ALL if issubclass(condition, OneOf))
"""Those that ask whether one fact is among some values: one look-up answers them for all rules (policy.index)."""
