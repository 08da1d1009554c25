"""All mutants. A new mistake gets a row in the file of its kind, and the name of the test that is there to catch it."""

from __future__ import annotations

from api_mutants import API
from buyer_mutants import BUYERS
from door_mutants import DOOR
from front_mutants import FRONT
from http_mutants import HTTP
from journal_mutants import JOURNAL
from ledger_mutants import LEDGER
from library_mutants import LIBRARY
from order_mutants import ORDERS
from origin_mutants import ORIGIN
from policy_mutants import POLICY
from service_mutants import SERVICES

MUTANTS = (*HTTP, *ORIGIN, *POLICY, *LEDGER, *SERVICES, *ORDERS, *BUYERS, *DOOR, *FRONT, *API, *JOURNAL, *LIBRARY)
