"""Triggers with which the database itself refuses to change or delete history.

Rating rule 9, for both databases:

- cdrs: an UNRATED row may become RATED or NOT_BILLABLE, once, with only its outcome changed; or it
  stays UNRATED with another reason at a later rate_revision, with nothing else changed. All other
  UPDATEs and each DELETE are refused, and all UPDATEs of a reversed CDR.
- cdrs: a generation above 0 is inserted only if the one before it is reversed, so that at most one
  CDR of a call_id is not reversed.
- rate_versions: a row may be retired, once; every other UPDATE and each DELETE is refused.
- tenant_versions, upload_chunks, cdr_pricings, cdr_reversals, ledger_entries, audit_entries: UPDATE
  and DELETE are refused.
- ledger_heads: a chain grows by one entry at a time; DELETE is refused.
- upload_failures: UPDATE is refused; old ones may be deleted.
- tokens: a row may be revoked, once; every other UPDATE and each DELETE is refused.
- rate_changes: UPDATE and DELETE are refused.
- uploads: the identity, the scope and the start never change, the totals and the revision never
  fall, and a reversal is requested once; DELETE is refused.
- tenants, extensions: the identity never changes; DELETE is refused while CDRs refer to the row,
  and so is a change of the tenant's currency.

PostgreSQL also has TRUNCATE, which fires no row trigger: refused on all of these tables. SQLite
also has REPLACE, which deletes the row with the same key without firing DELETE triggers (unless the
connection turns recursive_triggers on; the sqlite3 shell does not): a trigger checks before each
INSERT whether the key is taken. For tables that are written with ON CONFLICT DO NOTHING it skips
the row, like this clause; for others it refuses.

Triggers are not part of the migrations: ``drop`` and ``install`` frame each upgrade, so the
triggers always fit the newest schema, and a migration can move data without them. Every refusal
reaches Python as IntegrityError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from tollwire.service.storage.schema.all_tables import METADATA

_NAME = "tollwire_"
_NOT_AGAIN = "a call is recorded again only once its CDR is reversed"

# The columns of an UNRATED CDR that RateUnrated may change.
_OUTCOME = (
    "status",
    "unrated_reason",
    "bill_seconds",
    "cost_units",
    "cost_fraction_e8",
    "rate_version_id",
    "rate_revision",
)
# The same if the CDR stays UNRATED.
_REASON = ("unrated_reason", "rate_revision")
# The columns of an upload that never fall, and all that may change.
_OF_UPLOADS_RISING = (
    *("committed_offset", "created", "duplicates", "conflicts", "rejected", "unrated"),
    *("duration_seconds", "recorded_again", "derived_call_ids", "derived_duplicates", "revision"),
)
_OF_UPLOADS_CHANGING = (
    *_OF_UPLOADS_RISING,
    *("stated_calls", "stated_duration_seconds", "updated_at_ns", "reversed_at_ns", "chunks_hash"),
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """``event`` on ``table`` is refused with ``message``: always, or under the condition ``when``,
    or while the column ``in_use_by`` of a row of ``in_use_in`` has the id of the row. ``{is}``
    compares like = and treats NULLs as equal."""

    table: str
    event: str
    message: str
    when: str = ""
    in_use_by: str = ""
    in_use_in: str = "cdrs"

    @property
    def name(self) -> str:
        event, _, column = self.event.lower().partition(" of ")
        name = f"{_NAME}{self.table}_{event}"
        if column:
            name += f"_{column}"
        return name if self.in_use_in == "cdrs" else f"{name}_{self.in_use_in}"


def _kept(table: str, free: tuple[str, ...]) -> str:
    """The condition that every column but ``free`` keeps its value."""
    columns = METADATA.tables[table].columns.keys()
    return " AND ".join(f"NEW.{name} {{is}} OLD.{name}" for name in columns if name not in free)


_REFUSALS = (
    _Refusal(
        "cdrs",
        "UPDATE",
        "a CDR never changes, except that an UNRATED one is priced once, or gets another reason",
        when=f"NOT (OLD.status = 3 AND NEW.status IN (1, 2) AND {_kept('cdrs', _OUTCOME)}"
        " OR OLD.status = 3 AND NOT (NEW.unrated_reason {is} OLD.unrated_reason)"
        " AND NEW.rate_revision > OLD.rate_revision"
        f" AND {_kept('cdrs', _REASON)})",
    ),
    _Refusal(
        "cdrs",
        "UPDATE",
        "a CDR that is reversed never changes",
        in_use_by="cdr_id",
        in_use_in="cdr_reversals",
    ),
    _Refusal("cdrs", "DELETE", "a CDR is never deleted"),
    _Refusal(
        "rate_versions",
        "UPDATE",
        "a version of a rate never changes, but that it is retired once",
        when="NOT (OLD.retired_revision IS NULL AND NEW.retired_revision IS NOT NULL"
        f" AND {_kept('rate_versions', ('retired_revision',))})",
    ),
    _Refusal("rate_versions", "DELETE", "a version of a rate is never deleted"),
    _Refusal("tenant_versions", "UPDATE", "a version of a tenant never changes"),
    _Refusal("tenant_versions", "DELETE", "a version of a tenant is never deleted"),
    _Refusal("rate_changes", "UPDATE", "a change of a deck never changes"),
    _Refusal("rate_changes", "DELETE", "a change of a deck is never deleted"),
    _Refusal(
        "uploads",
        "UPDATE",
        "an upload only grows, and is reversed once",
        when=f"NOT ({_kept('uploads', _OF_UPLOADS_CHANGING)} AND (OLD.reversed_at_ns IS NULL"
        " OR NEW.reversed_at_ns {is} OLD.reversed_at_ns)"
        f"{''.join(f' AND NEW.{name} >= OLD.{name}' for name in _OF_UPLOADS_RISING)})",
    ),
    _Refusal("uploads", "DELETE", "an upload is never deleted"),
    _Refusal("upload_chunks", "UPDATE", "a committed chunk never changes"),
    _Refusal("upload_chunks", "DELETE", "a committed chunk is never deleted"),
    _Refusal("cdr_pricings", "UPDATE", "a pricing never changes"),
    _Refusal("cdr_pricings", "DELETE", "a pricing is never deleted"),
    _Refusal("ledger_entries", "UPDATE", "an entry of the ledger never changes"),
    _Refusal("ledger_entries", "DELETE", "an entry of the ledger is never deleted"),
    _Refusal(
        "ledger_heads",
        "UPDATE",
        "a chain of the ledger only grows, by one entry at a time",
        when="NOT (NEW.chain {is} OLD.chain AND NEW.length {is} OLD.length + 1)",
    ),
    _Refusal("ledger_heads", "DELETE", "a chain of the ledger is never deleted"),
    _Refusal("upload_failures", "UPDATE", "a failed record never changes"),
    _Refusal("cdr_reversals", "UPDATE", "a reversal never changes"),
    _Refusal("cdr_reversals", "DELETE", "a reversal is never deleted"),
    _Refusal(
        "tokens",
        "UPDATE",
        "a token never changes, but that it is revoked once",
        when="NOT (OLD.revoked_at_ns IS NULL AND NEW.revoked_at_ns IS NOT NULL"
        f" AND {_kept('tokens', ('revoked_at_ns', 'change_seq'))})",
    ),
    _Refusal("tokens", "DELETE", "a token is never deleted"),
    _Refusal("audit_entries", "UPDATE", "an entry of the audit log never changes"),
    _Refusal("audit_entries", "DELETE", "an entry of the audit log is never deleted"),
    _Refusal("tenants", "UPDATE", "a tenant keeps its id", when="NOT (NEW.id {is} OLD.id)"),
    _Refusal(
        "tenants",
        "UPDATE OF currency",
        "a tenant with CDRs keeps its currency",
        when="NEW.currency <> OLD.currency",
        in_use_by="tenant_id",
    ),
    _Refusal("tenants", "DELETE", "CDRs refer to this tenant", in_use_by="tenant_id"),
    _Refusal(
        "extensions",
        "UPDATE",
        "an extension keeps its id and its owner",
        when="NOT (NEW.id {is} OLD.id AND NEW.tenant_id {is} OLD.tenant_id)",
    ),
    _Refusal("extensions", "DELETE", "CDRs refer to this extension", in_use_by="extension_id"),
)

_TABLES = tuple(dict.fromkeys(refusal.table for refusal in _REFUSALS))

# The unique keys of each table, for SQLite's triggers against REPLACE. Every table has "rowid",
# also without such a column; NEW.rowid is -1 if the INSERT does not give it. CDRs come in bulk and
# never have the id -1: the condition saves a search.
_PRESENT = "retired_revision IS NULL AND NEW.retired_revision IS NULL"
_KEYS: dict[str, tuple[str, ...]] = {
    "cdrs": (
        "NEW.rowid <> -1 AND rowid = NEW.rowid",
        "tenant_id = NEW.tenant_id AND call_id = NEW.call_id AND generation = NEW.generation",
    ),
    "rate_versions": (
        "rowid = NEW.rowid",
        # Of one rate, the first version and the later ones: see the index of rate_id.
        f"version_id = NEW.rate_id AND NEW.rate_id <> NEW.version_id AND {_PRESENT}",
        "rate_id = NEW.rate_id AND rate_id <> version_id AND NEW.rate_id <> NEW.version_id"
        f" AND {_PRESENT}",
        "tenant_id = NEW.tenant_id AND prefix = NEW.prefix"
        " AND effective_from_s = NEW.effective_from_s"
        f" AND effective_from_nanos = NEW.effective_from_nanos AND {_PRESENT}",
    ),
    "tenant_versions": (
        "rowid = NEW.rowid",
        "tenant_id = NEW.tenant_id AND revision = NEW.revision",
    ),
    "rate_changes": (
        "rowid = NEW.rowid",
        "tenant_id = NEW.tenant_id AND revision = NEW.revision",
    ),
    "uploads": ("rowid = NEW.rowid", "id = NEW.id"),
    "upload_chunks": (
        "rowid = NEW.rowid",
        "upload_id = NEW.upload_id AND first_index = NEW.first_index",
    ),
    "cdr_pricings": (
        "rowid = NEW.rowid",
        "cdr_id = NEW.cdr_id AND new_unrated_reason IS NULL AND NEW.new_unrated_reason IS NULL",
    ),
    "ledger_entries": (
        "rowid = NEW.rowid",
        "chain = NEW.chain AND seq = NEW.seq",
        "kind = NEW.kind AND first_id = NEW.first_id AND revision = NEW.revision",
    ),
    "ledger_heads": ("rowid = NEW.rowid", "chain = NEW.chain"),
    "upload_failures": (
        "NEW.rowid <> -1 AND rowid = NEW.rowid",
        "upload_id = NEW.upload_id AND record_index = NEW.record_index",
    ),
    "cdr_reversals": ("rowid = NEW.rowid", "cdr_id = NEW.cdr_id"),
    "tokens": (
        "rowid = NEW.rowid",
        "id = NEW.id",
        "certificate_identity = NEW.certificate_identity AND revoked_at_ns IS NULL"
        " AND NEW.revoked_at_ns IS NULL",
    ),
    "audit_entries": ("NEW.rowid <> -1 AND rowid = NEW.rowid",),
    "tenants": ("rowid = NEW.rowid", "id = NEW.id"),
    "extensions": ("rowid = NEW.rowid", "id = NEW.id"),
}

# That the generation before that of a new CDR is reversed, as the body of an EXISTS.
_ONE_BEFORE = (
    "SELECT 1 FROM cdrs JOIN cdr_reversals ON cdr_reversals.cdr_id = cdrs.id"
    " WHERE cdrs.tenant_id = NEW.tenant_id AND cdrs.call_id = NEW.call_id"
    " AND cdrs.generation = NEW.generation - 1"
)

# Tables that are written with ON CONFLICT DO NOTHING.
_SKIPPING = ("cdrs", "tenants", "extensions")

_POSTGRESQL_FUNCTIONS = (
    f"""
    CREATE OR REPLACE FUNCTION {_NAME}refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
    END $$
    """,
    # The table is named with its schema, so that a temporary table cannot replace it.
    f"""
    CREATE OR REPLACE FUNCTION {_NAME}refuse_in_use() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        in_use boolean;
    BEGIN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.%I WHERE %I = $1)',
                       TG_TABLE_SCHEMA, TG_ARGV[1], TG_ARGV[2])
            INTO in_use USING OLD.id;
        IF in_use THEN
            RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
        END IF;
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION {_NAME}refuse_again() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        is_allowed boolean;
    BEGIN
        EXECUTE format(
            'SELECT EXISTS (SELECT 1 FROM %I.cdrs JOIN %I.cdr_reversals'
            ' ON cdr_reversals.cdr_id = cdrs.id WHERE cdrs.tenant_id = $1'
            ' AND cdrs.call_id = $2 AND cdrs.generation = $3 - 1)',
            TG_TABLE_SCHEMA, TG_TABLE_SCHEMA)
            INTO is_allowed USING NEW.tenant_id, NEW.call_id, NEW.generation;
        IF NOT is_allowed THEN
            RAISE EXCEPTION '{_NOT_AGAIN}' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
)


def install(connection: Connection) -> None:
    """Create all triggers. None of them may exist."""
    sqlite = connection.dialect.name == "sqlite"
    for statement in _for_sqlite() if sqlite else _for_postgresql():
        connection.execute(text(statement))


def drop(connection: Connection) -> None:
    """Remove all triggers that ``install`` of this or an older release made."""
    for name, table in installed(connection):
        on_table = "" if connection.dialect.name == "sqlite" else f" ON {table}"
        connection.exec_driver_sql(f"DROP TRIGGER {name}{on_table}")


def installed(connection: Connection) -> list[tuple[str, str]]:
    """The names and tables of the existing triggers."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = (
            "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
            " WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace"
        )
    rows = connection.exec_driver_sql(query)
    return sorted((name, table) for name, table in rows if name.startswith(_NAME))


def missing(connection: Connection) -> list[tuple[str, str]]:
    """The names and tables of the triggers of ``install`` that do not exist, or that do not fire in
    this session."""
    sqlite = connection.dialect.name == "sqlite"
    statements = _for_sqlite() if sqlite else _for_postgresql()
    expected = {
        (found[1], found[2])
        for statement in statements
        if (found := re.match(r"CREATE TRIGGER (\w+) .*? ON (\w+)", statement))
    }
    if sqlite:
        return sorted(expected - set(installed(connection)))
    firing = connection.exec_driver_sql(
        "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND tgenabled IN ('A',"
        " CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)"
    )
    return sorted(expected - {(name, table) for name, table in firing})


def described(triggers: Sequence[tuple[str, str]]) -> str:
    """For messages."""
    return ", ".join(f"{name} of {table}" for name, table in triggers)


def _for_sqlite() -> Iterator[str]:
    for refusal in _REFUSALS:
        when = refusal.when.replace("{is}", "IS")
        if refusal.in_use_by:
            rows = f"{refusal.in_use_in} WHERE {refusal.in_use_by} = OLD.id"
            in_use = f"EXISTS (SELECT 1 FROM {rows})"
            when = f"{when} AND {in_use}" if when else in_use
        yield (
            f"CREATE TRIGGER {refusal.name} BEFORE {refusal.event} ON {refusal.table}"
            f" FOR EACH ROW {f'WHEN {when}' if when else ''}"
            f" BEGIN SELECT RAISE(ABORT, '{refusal.message}'); END"
        )
    for table, keys in _KEYS.items():
        action = "IGNORE" if table in _SKIPPING else f"ABORT, 'a key of {table} is taken'"
        # A check here, and not in a WHEN, saves a quarter of the cost of the trigger.
        looks = " ".join(f"SELECT RAISE({action}) FROM {table} WHERE {key};" for key in keys)
        if table == "cdrs":
            # FAIL keeps the rows before this one: with ABORT SQLite would copy each page before it
            # changes it, for every row anew, and an insert would take twice as long.
            looks += (
                f" SELECT RAISE(FAIL, '{_NOT_AGAIN}')"
                f" WHERE NEW.generation > 0 AND NOT EXISTS ({_ONE_BEFORE});"
            )
        yield (
            f"CREATE TRIGGER {_NAME}{table}_insert BEFORE INSERT ON {table}"
            f" FOR EACH ROW BEGIN {looks} END"
        )


def _for_postgresql() -> Iterator[str]:
    yield from _POSTGRESQL_FUNCTIONS
    for refusal in _REFUSALS:
        when = refusal.when.replace("{is}", "IS NOT DISTINCT FROM")
        if refusal.in_use_by:
            rows = f"'{refusal.in_use_in}', '{refusal.in_use_by}'"
            call = f"refuse_in_use('{refusal.message}', {rows})"
        else:
            call = f"refuse('{refusal.message}')"
        # AFTER: by then the deletion has waited for all transactions that have locked the row, and
        # no other can lock it.
        time = "AFTER" if refusal.in_use_by and refusal.event == "DELETE" else "BEFORE"
        yield (
            f"CREATE TRIGGER {refusal.name} {time} {refusal.event} ON {refusal.table}"
            f" FOR EACH ROW {f'WHEN ({when})' if when else ''}"
            f" EXECUTE FUNCTION {_NAME}{call}"
        )
    # AFTER: with a trigger BEFORE each row COPY would insert the rows one at a time.
    yield (
        f"CREATE TRIGGER {_NAME}cdrs_insert AFTER INSERT ON cdrs"
        f" FOR EACH ROW WHEN (NEW.generation > 0) EXECUTE FUNCTION {_NAME}refuse_again()"
    )
    for table in _TABLES:
        yield (
            f"CREATE TRIGGER {_NAME}{table}_truncate BEFORE TRUNCATE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {_NAME}refuse('{table} is never truncated')"
        )
