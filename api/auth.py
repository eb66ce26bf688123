"""A request's key becomes its `Caller`, and routes say what a caller must be allowed to do."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.access import Caller, Right, Scope
from api.errors import ApiError

bearer = HTTPBearer(auto_error=False, description="A key: one of INSIGHTS_API_KEYS.")
header = APIKeyHeader(name="X-API-KEY", auto_error=False, description="The same keys in a header of their own.")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="router-insights"'}


def digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


class KeyRing:
    """The callers by the digest of their key.

    Looking a digest up takes a different time for different digests, and that tells nothing: whoever wants to
    use it has to find keys whose SHA-256 begins as they like, and even then has learned no key.
    """

    def __init__(self, callers: Mapping[bytes, Caller]) -> None:
        self._callers = dict(callers)

    @classmethod
    def of_settings(cls, keys: Iterable[str]) -> "KeyRing":
        """Keys of INSIGHTS_API_KEYS have every right."""
        admin = frozenset({Scope.ADMIN})
        return cls({digest(key): Caller(f"setting-{number}", admin) for number, key in enumerate(keys, start=1)})

    def find(self, key: str) -> Caller | None:
        return self._callers.get(digest(key))


def _caller_of(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    in_header: Annotated[str | None, Depends(header)],
) -> Caller:
    """Raises ApiError 401 unless the request carries a key that is known. `Authorization` goes first."""
    key = credentials.credentials if credentials else in_header
    if not key:
        raise ApiError(401, "Send the header `Authorization: Bearer <key>` or `X-API-KEY: <key>`.", headers=CHALLENGE)
    keys: KeyRing = request.app.state.keys
    caller = keys.find(key)
    if caller is None:
        raise ApiError(401, "The key is not known.", headers=CHALLENGE)
    return caller


RequestCaller = Annotated[Caller, Depends(_caller_of)]


def require(caller: Caller, right: Right) -> None:
    """Raises ApiError 403 for a caller without the right."""
    if not caller.may(right):
        raise ApiError(403, f"This key may not do that; it needs the right to {MEANINGS[right]}.")


MEANINGS = {
    Right.READ: "read logs and statistics",
    Right.CONTENT: "see what is in requests: headers, bodies, text and error messages",
    Right.SEND: "send events",
    Right.ADMIN: "administer",
}


def allow(right: Right) -> Any:
    """A dependency for `include_router` or a route: only callers with this right get past it."""

    def check(caller: RequestCaller) -> None:
        require(caller, right)

    return Depends(check)
