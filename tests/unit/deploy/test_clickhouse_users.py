"""Who may do what in ClickHouse, and how much of it: what docs/deploy.md says, held to the users file."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from api.settings import ApiSettings
from tests.support.checkout import ROOT

USERS = ElementTree.parse(ROOT / "deploy/clickhouse/users.d/insights.xml").getroot()
NAMES = ("insights_admin", "insights_writer", "insights_api", "insights_grafana")
GRANT = re.compile(r"GRANT (?P<what>[A-Z, ]+)(?:\([\w, ]+\))? ON (?P<where>[\w*]+\.[\w*]+)")
MEBIBYTE = 1024**2


def child(parent: ElementTree.Element, path: str) -> ElementTree.Element:
    found = parent.find(path)
    assert found is not None, path
    return found


def profile_of(user: str) -> ElementTree.Element:
    return child(USERS, f"profiles/{child(USERS, f'users/{user}/profile').text}")


def limit(user: str, setting: str) -> int:
    return int(child(profile_of(user), setting).text or "")


def most(user: str, setting: str) -> int:
    """What the user may raise it to."""
    return int(child(profile_of(user), f"constraints/{setting}/max").text or "")


def grants(user: str) -> set[tuple[str, str]]:
    """(what, where) of each grant."""
    found = set()
    for query in USERS.findall(f"users/{user}/grants/query"):
        grant = GRANT.fullmatch(query.text or "")
        assert grant, query.text
        found |= {(what.strip(), grant["where"]) for what in grant["what"].split(",")}
    return found


def test_there_is_nobody_else_and_everybody_has_a_password_a_profile_and_a_quota() -> None:
    users = {user.tag: user for user in child(USERS, "users")}
    assert users.pop("default").attrib == {"remove": "remove"}
    assert set(users) == set(NAMES)
    for name, user in users.items():
        [password] = user.findall("password_sha256_hex")
        assert password.attrib == {"incl": f"{name.removeprefix('insights_')}_password"}
        assert not user.findall("password") + user.findall("no_password") + user.findall("access_management")
        child(USERS, f"profiles/{child(user, 'profile').text}")
        child(USERS, f"quotas/{child(user, 'quota').text}")


@pytest.mark.parametrize("name", NAMES[1:])
def test_nobody_but_the_admin_changes_what_is_there(name: str) -> None:
    assert {what for what, _ in grants(name)} <= {"SELECT", "INSERT"}
    elsewhere = {where for _, where in grants(name) if where.split(".")[0] not in {"insights", "insights_shard"}}
    # Where the API sees its own queries, to kill those that nobody waits for, and the writer its inserts, to wait for.
    assert elsewhere == ({"system.processes"} if name in {"insights_api", "insights_writer"} else set())


def test_the_api_writes_only_down_who_asked() -> None:
    tables = {where.split(".")[1] for what, where in grants("insights_api") if what == "INSERT"}
    assert tables == {"api_key_uses", "audit_log"}


def test_grafana_reads_and_no_more() -> None:
    assert {what for what, _ in grants("insights_grafana")} == {"SELECT"}
    assert not {where for _, where in grants("insights_grafana") if "*" in where}
    assert limit("insights_grafana", "readonly") == 1


def test_a_grant_on_one_database_is_one_on_the_other() -> None:
    """A cluster has the tables twice (docs/deploy.md)."""
    for name in NAMES:
        local, shards = (
            {(what, where.split(".")[1]) for what, where in grants(name) if where.split(".")[0] == database}
            for database in ("insights", "insights_shard")
        )
        assert local == shards


def test_what_people_ask_is_bounded() -> None:
    assert limit("insights_grafana", "max_execution_time") == 30
    assert limit("insights_grafana", "max_memory_usage") == 2048 * MEBIBYTE
    assert limit("insights_grafana", "max_rows_to_read") == 200_000_000
    assert limit("insights_grafana", "max_result_rows") == 100_000
    assert limit("insights_grafana", "max_concurrent_queries_for_user") <= 50
    assert most("insights_grafana", "max_execution_time") <= 120
    assert child(USERS, "users/insights_grafana/quota").text == "insights_people"
    assert {bound.tag for bound in child(USERS, "quotas/insights_people/interval")} > {"queries", "execution_time"}


def test_the_api_is_bounded_and_may_ask_for_what_its_settings_say() -> None:
    defaults = ApiSettings(api_keys="k")
    asked = {"max_execution_time": defaults.max_execution_time_seconds, "max_memory_usage": defaults.max_memory_bytes}
    for setting, value in asked.items():
        assert value <= most("insights_api", setting)
        assert limit("insights_api", setting) <= most("insights_api", setting)
    assert (most("insights_api", "max_execution_time"), most("insights_api", "max_memory_usage")) == (
        120,
        4096 * MEBIBYTE,
    )
    for setting in ("max_memory_usage_for_user", "max_concurrent_queries_for_user"):
        assert limit("insights_api", setting) > 0
        child(profile_of("insights_api"), f"constraints/{setting}/readonly")


def test_a_workers_insert_is_bounded_and_never_waits_in_a_queue() -> None:
    assert limit("insights_writer", "max_memory_usage") == 4096 * MEBIBYTE
    for name in NAMES[:3]:
        assert (limit(name, "async_insert"), limit(name, "distributed_foreground_insert")) == (0, 1)
