"""The interactive reference at /docs; it loads nothing from other hosts."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

ASSETS = Path(str(files("fastapi_offline").joinpath("static")))


def _script_hashes(html: str) -> str:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)


def install(app: FastAPI) -> None:
    """Serve the page and its files, with a policy by which a browser runs only these scripts."""
    app.mount("/docs/assets", StaticFiles(directory=ASSETS), name="reference assets")

    async def show_reference(_: Request) -> Response:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
        )
        hashes = _script_hashes(bytes(page.body).decode())
        page.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline';"
            " img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
        )
        return page

    app.add_route("/docs", show_reference, include_in_schema=False)
