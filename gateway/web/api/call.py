"""One call of the API: what it is called, who may make it, what it takes and answers, and what does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel

from gateway.ports import Fields
from gateway.services.staff import acted, record
from gateway.web.api.answering import Answer
from gateway.web.api.asking import Nothing
from gateway.web.api.users import Role, User

if TYPE_CHECKING:
    from gateway.bootstrap.desk import Office

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that was understood. `key`: its Idempotency-Key, or ""."""

    user: User
    action: str
    status: int
    path: Mapping[str, str]
    body: BaseModel
    query: BaseModel
    key: str
    office: Office

    def given(self, kind: type[M]) -> M:
        """The body or the query, whichever is of this kind."""
        for each in (self.body, self.query):
            if isinstance(each, kind):
                return each
        raise TypeError(f"{self.action} takes no {kind.__name__}")

    def acted(self, *, order_id: str | None = None, token_id: str | None = None) -> Fields:
        """The event of this call, as it will have been answered."""
        return acted(self.user.name, self.action, status=self.status, order_id=order_id, token_id=token_id)

    async def record(self, *, order_id: str | None = None, token_id: str | None = None) -> None:
        """Put the call on record. Raises LedgerDown."""
        event = self.acted(order_id=order_id, token_id=token_id)
        await record(event, self.office.tools.events, self.office.settings.shards)


@dataclass(frozen=True, slots=True)
class Call:
    """`name` is its operationId, and the `staff.action` of its event where it `changes` something.

    `refuses`: the statuses that its own work may have besides `status` and those that every call may have.
    """

    name: str
    method: Literal["GET", "POST", "PUT"]
    path: str
    role: Role
    summary: str
    does: Callable[[Asked], Awaitable[Answer]]
    answer: type[Answer]
    body: type[BaseModel] = Nothing
    query: type[BaseModel] = Nothing
    status: int = 200
    refuses: tuple[int, ...] = ()
    keyed: bool = False
    """Whether it takes an Idempotency-Key."""
    example: Mapping[str, object] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    @property
    def takes_body(self) -> bool:
        return self.changes

    @property
    def needs_body(self) -> bool:
        """Whether an empty body cannot be meant."""
        return any(each.is_required() for each in self.body.model_fields.values())
