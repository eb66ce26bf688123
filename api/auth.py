"""`Authorization: Bearer ak-...` against the configured keys."""

from hashlib import sha256
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import ApiError

bearer = HTTPBearer(auto_error=False, description="One of the keys in INSIGHTS_API_KEYS.")


def digest(key: str) -> bytes:
    """Equal length for every key, so that comparing tells nothing about it."""
    return sha256(key.encode()).digest()


def require_key(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
    """Raises ApiError 401 unless the request carries one of `app.state.key_digests`."""
    if credentials is None:
        raise _unauthenticated("Send the header `Authorization: Bearer <key>`.")
    given = digest(credentials.credentials)
    # Every key is compared, whichever fits.
    if not sum(compare_digest(given, known) for known in request.app.state.key_digests):
        raise _unauthenticated("The key is not known.")


def _unauthenticated(message: str) -> ApiError:
    return ApiError(401, message, headers={"WWW-Authenticate": 'Bearer realm="router-insights"'})
