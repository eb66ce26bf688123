"""Makes each secret of docker-compose.yml once, in the volume of the service that needs it; existing files are kept.

To choose a secret yourself, write its file into the volume before the first start. Standard library only.
"""

import hashlib
import secrets
import sys
from pathlib import Path

DATABASE = "clickhouse:8123/insights"
USERS = ("admin", "writer", "api", "grafana")


def secret(path: Path, make: str) -> str:
    """The text of a file, which is written with the text `make` if it does not exist."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make)
        # Each container runs as another user, and mounts only its own volume.
        path.chmod(0o444)
    return path.read_text().strip()


def main(root: Path) -> None:
    passwords = {user: secret(root / "passwords" / user, secrets.token_urlsafe(24)) for user in USERS}
    hashes = "".join(
        f"<{user}_password>{hashlib.sha256(password.encode()).hexdigest()}</{user}_password>"
        for user, password in passwords.items()
    )
    secret(root / "clickhouse" / "clickhouse-users.xml", f"<clickhouse>{hashes}</clickhouse>\n")
    for user in ("admin", "writer", "api"):
        url = f"http://insights_{user}:{passwords[user]}@{DATABASE}"
        secret(root / user / "insights_clickhouse_url", url)
    secret(root / "api" / "insights_api_keys", f"ak-{secrets.token_urlsafe(32)}")
    secret(root / "grafana" / "grafana_password", passwords["grafana"])
    secret(root / "grafana" / "grafana_admin_password", secrets.token_urlsafe(24))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
