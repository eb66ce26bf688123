"""Authentication and authorization: the caller of a request's key, and the permission that a route requires."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.errors import ApiError
from api.security.keyring import KeyRing
from api.security.permissions import Caller, Permission
from api.security.rate_limits import RateLimits

bearer = HTTPBearer(auto_error=False, description="A key of `insights keys create`, or one of INSIGHTS_API_KEYS.")
header = APIKeyHeader(name="X-API-KEY", auto_error=False, description="The same keys in a header of their own.")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="router-insights"'}
ALLOWS = {
    Permission.READ: "read logs and statistics",
    Permission.CONTENT: "see what is in requests: headers, bodies, text and error messages",
    Permission.SEND: "send events",
    Permission.ADMIN: "administer",
}


async def _caller_of(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    in_header: Annotated[str | None, Depends(header)],
) -> Caller:
    """Raises ApiError 401 unless the request carries one known key, 429 after too many wrong keys from its address.

    A known key passes all the same: many clients may share an address, and 256 bits are not guessed by trying.
    The same key may stand in both headers.

    This and every other dependency is async and blocks nowhere: it must work when all threads are busy.
    """
    key = credentials.credentials if credentials else in_header
    authorizations, keys_given = request.headers.getlist("authorization"), request.headers.getlist("x-api-key")
    if len(authorizations) > 1 or {*keys_given, key} > {key}:
        raise ApiError(401, "Send one key: the request carries several.", headers=CHALLENGE)
    if not key:
        raise ApiError(401, "Send the header `Authorization: Bearer <key>` or `X-API-KEY: <key>`.", headers=CHALLENGE)
    keys: KeyRing = request.app.state.keys
    limits: RateLimits = request.app.state.rate_limits
    caller = await keys.find(key)
    if caller is None:
        address = request.client.host if request.client else ""
        limits.check_address(address)
        limits.count_wrong_key(address)
        raise ApiError(401, "The key is not known.", headers=CHALLENGE)
    request.state.caller, request.state.key = caller, key
    return caller


RequestCaller = Annotated[Caller, Depends(_caller_of)]


async def _still_allowed(request: Request, caller: RequestCaller) -> Callable[[], Awaitable[bool]]:
    keys: KeyRing = request.app.state.keys
    key: str = request.state.key

    async def is_allowed() -> bool:
        return await keys.find(key) == caller

    return is_allowed


# Whether the key of a request is still what it was when the answer began: for answers without an end.
StillAllowed = Annotated[Callable[[], Awaitable[bool]], Depends(_still_allowed)]


async def one_stream(request: Request, caller: RequestCaller) -> AsyncIterator[None]:
    """A dependency for routes that stream. Raises ApiError 429 for a caller that has too many streams open."""
    limits: RateLimits = request.app.state.rate_limits
    with limits.open_stream(caller.name):
        yield


def require(caller: Caller, permission: Permission) -> None:
    """Raises ApiError 403 for a caller without the permission."""
    if not caller.may(permission):
        raise ApiError(403, f"This key may not do that; it needs the right to {ALLOWS[permission]}.")


def allow(permission: Permission) -> Any:
    """A dependency for `include_router` or a route: only callers with this permission get past it."""

    async def check(request: Request, caller: RequestCaller) -> None:
        require(caller, permission)
        # How much a gateway sends is Kafka's matter.
        if permission is not Permission.SEND:
            limits: RateLimits = request.app.state.rate_limits
            limits.count_request(caller.name)

    return Depends(check)


def limited(endpoint: str) -> Any:
    """A dependency for a route that has a limit of its own (`RateLimits`)."""

    async def check(request: Request, caller: RequestCaller) -> None:
        limits: RateLimits = request.app.state.rate_limits
        limits.count_endpoint(endpoint, caller.name)

    return Depends(check)
