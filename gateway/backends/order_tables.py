"""The order book's tables, alike in SQLite and PostgreSQL.

Times in Unix ms. `due_at` is when a row may be taken by somebody, NULL once there is nothing more to do with it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 1
"""Of the tables; a book of another version is not opened."""

tables = MetaData()

book = Table(
    "gateway_book",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("latest", BigInteger, nullable=False),
)
"""One row: the version, and the number of the last change of any order."""

orders = Table(
    "gateway_orders",
    tables,
    Column("order_id", Text, primary_key=True),
    Column("shop", Text, nullable=False),
    Column("shop_order_id", Text, nullable=False, index=True),
    Column("reference", Text, nullable=False, index=True),
    Column("email", Text, nullable=False, index=True),
    Column("customer_id", Text, nullable=False, index=True),
    Column("first", BigInteger, nullable=False),
    Column("latest", BigInteger, nullable=False, unique=True),
    Column("document", Text, nullable=False),
)
"""`first` and `latest` are the numbers of the order's first and last change."""

deliveries = Table(
    "gateway_deliveries",
    tables,
    Column("shop", Text, primary_key=True),
    Column("delivery_id", Text, primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, index=True),
    Column("attempts", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("headers", Text),
    Column("body", LargeBinary),
)
"""The inbox. `attempts`: how often it was given to somebody; `why`: what was wrong the last time."""

mails = Table(
    "gateway_mails",
    tables,
    Column("mail_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("answer", Text, nullable=False),
    UniqueConstraint("order_id", "purpose", "number", name="gateway_mails_once"),
    Index("ix_gateway_mails_due", "state", "due_at"),
)

outbox = Table(
    "gateway_outbox",
    tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("fields", Text, nullable=False),
    Column("link", Text, nullable=False),
    # A number that is given again would let a slow worker forget an event that nobody has sent.
    sqlite_autoincrement=True,
)
