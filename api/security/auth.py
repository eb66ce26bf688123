"""A request's key becomes its `Caller`, and routes say what a caller must be allowed to do."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.errors import ApiError
from api.security.access import Caller, Permission
from api.security.keyring import KeyRing
from api.security.rate_limits import Throttle

bearer = HTTPBearer(auto_error=False, description="A key of `insights keys create`, or one of INSIGHTS_API_KEYS.")
header = APIKeyHeader(name="X-API-KEY", auto_error=False, description="The same keys in a header of their own.")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="router-insights"'}


def _caller_of(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    in_header: Annotated[str | None, Depends(header)],
) -> Caller:
    """Raises ApiError 401 unless the request carries a key that is known, 429 where too many were not.

    `Authorization` goes first. Sync, so that it runs in a thread: the keys may have to be read.
    """
    key = credentials.credentials if credentials else in_header
    if not key:
        raise ApiError(401, "Send the header `Authorization: Bearer <key>` or `X-API-KEY: <key>`.", headers=CHALLENGE)
    keys: KeyRing = request.app.state.keys
    throttle: Throttle = request.app.state.throttle
    address = request.client.host if request.client else ""
    throttle.check_address(address)
    caller = keys.find(key)
    if caller is None:
        throttle.count_wrong_key(address)
        raise ApiError(401, "The key is not known.", headers=CHALLENGE)
    request.state.caller = caller
    return caller


RequestCaller = Annotated[Caller, Depends(_caller_of)]


def require(caller: Caller, right: Permission) -> None:
    """Raises ApiError 403 for a caller without the right."""
    if not caller.may(right):
        raise ApiError(403, f"This key may not do that; it needs the right to {MEANINGS[right]}.")


MEANINGS = {
    Permission.READ: "read logs and statistics",
    Permission.CONTENT: "see what is in requests: headers, bodies, text and error messages",
    Permission.SEND: "send events",
    Permission.ADMIN: "administer",
}


def allow(right: Permission) -> Any:
    """A dependency for `include_router` or a route: only callers with this right get past it."""

    def check(request: Request, caller: RequestCaller) -> None:
        require(caller, right)
        # How much a gateway sends is Kafka's matter.
        if right is not Permission.SEND:
            throttle: Throttle = request.app.state.throttle
            throttle.count_request(caller.name)

    return Depends(check)


def limited(endpoint: str) -> Any:
    """A dependency for a route that has a limit of its own (`Throttle`)."""

    def check(request: Request, caller: RequestCaller) -> None:
        throttle: Throttle = request.app.state.throttle
        throttle.count_use(endpoint, caller.name)

    return Depends(check)
