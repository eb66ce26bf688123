"""The HTTP library: httpx2. It needs Python 3.11; its predecessor has the same names and serves 3.10."""

import sys

if sys.version_info >= (3, 11):
    import httpx2 as httpx
else:
    import httpx

__all__ = ["httpx"]
