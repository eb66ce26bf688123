"""Callers: their scopes, what these permit, and which rows exist for them.

Permissions are checked where a router is put into the app (`api.security.auth.allow`). Rows are confined in one place,
the caller's `Reader`: it sends `Caller.table_filters` with every query, and ClickHouse adds them to every read of the
tables named there, in subqueries, joins and projections too. So a new query returns no rows of others either.
"""

from dataclasses import dataclass
from enum import StrEnum

from clickhouse_connect.driver.binding import format_str

from aggregator.clickhouse.tables import DEAD_LETTERS, REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.rollups.measures import ROLLUPS, Dimension


class Scope(StrEnum):
    """What a key was created for."""

    ADMIN = "admin"
    READ = "read"
    READ_NO_BODIES = "read-no-bodies"
    INGEST = "ingest"


class Permission(StrEnum):
    """What a route requires of its caller."""

    READ = "read"
    # Anything that people or models wrote: headers, bodies, text, error messages. Also every filter, group or search
    # over them, since their answers reveal the same piece by piece.
    CONTENT = "content"
    SEND = "send"
    ADMIN = "admin"


PERMISSIONS: dict[Scope, frozenset[Permission]] = {
    Scope.ADMIN: frozenset(Permission),
    Scope.READ: frozenset({Permission.READ, Permission.CONTENT}),
    Scope.READ_NO_BODIES: frozenset({Permission.READ}),
    Scope.INGEST: frozenset({Permission.SEND}),
}

# How each table is confined; a test holds this to the tables of the migrated database.
# - by their columns user_id and api_key_id:
CONFINED_TABLES = (REQUEST_LOGS, REQUEST_PAYLOADS)
# - a confined caller sees no rows; these belong to no user or key:
CLOSED_TABLES = (DEAD_LETTERS, "api_keys", "api_key_revocations", "api_key_uses", "audit_log")
# - a confined caller sees no rows either, though these hold no content:
SHARED_TABLES = ("alerts",)
# - every caller sees all rows; these hold nothing of a request:
OPEN_TABLES = ("rollup_generations", "retention_marks", "schema_migrations")

NOTHING = "0"
# A rollup without the columns cannot be confined. The planner does not choose it for a confined question
# (`Reader.confine`). Should a query read it all the same, failing is better than a wrong sum.
REFUSED = "throwIf(1, 'this table cannot be confined to a caller')"

# Content. Without Permission.CONTENT these tables have no rows, and these columns of request_logs come back empty.
CONTENT_TABLES = (REQUEST_PAYLOADS, DEAD_LETTERS)
CONTENT_COLUMNS: dict[str, object] = {
    "error_message": "",
    "output": {},
    "output_keys": [],
    "variables": {},
    "input_variable_keys": [],
    "user_intent": "",
    "agent_intent": "",
}


@dataclass(frozen=True)
class Restriction:
    """The rows of one user, of certain api keys, or of a user with certain api keys."""

    user_id: str | None = None
    api_key_ids: tuple[str, ...] = ()

    @property
    def dimensions(self) -> frozenset[Dimension]:
        by_user = {Dimension.USER} if self.user_id is not None else set()
        return frozenset(by_user | ({Dimension.API_KEY} if self.api_key_ids else set()))

    @property
    def condition(self) -> str:
        """SQL over the columns user_id and api_key_id. With literals: table filters take no bound values."""
        terms = []
        if self.user_id is not None:
            terms.append(f"{Dimension.USER} = {format_str(self.user_id)}")
        if self.api_key_ids:
            terms.append(f"{Dimension.API_KEY} IN ({', '.join(map(format_str, self.api_key_ids))})")
        return " AND ".join(terms) or NOTHING

    def table_filters(self) -> dict[str, str]:
        own = self.condition
        filters = dict.fromkeys(CONFINED_TABLES, own)
        filters |= dict.fromkeys((*CLOSED_TABLES, *SHARED_TABLES), NOTHING)
        for rollup in ROLLUPS:
            filters[rollup.table] = own if self.dimensions <= set(rollup.dimensions) else REFUSED
        return filters


@dataclass(frozen=True)
class Caller:
    """The holder of the key of a request. Without a restriction they see every row."""

    name: str
    scopes: frozenset[Scope]
    restriction: Restriction | None = None

    def may(self, permission: Permission) -> bool:
        return any(permission in PERMISSIONS[scope] for scope in self.scopes)

    @property
    def table_filters(self) -> dict[str, str]:
        """Conditions by table, as ClickHouse's setting `additional_table_filters` takes them."""
        filters = self.restriction.table_filters() if self.restriction else {}
        if not self.may(Permission.CONTENT):
            filters |= dict.fromkeys(CONTENT_TABLES, NOTHING)
        return filters
