"""The enforcer's policy: what is read, what is refused, and that the page's examples work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from grantledger.base.toml import ConfigError, load_toml
from grantledger.enforcers.enforcement_policy import EnforcementPolicy, Route
from grantledger.enforcers.plugins import build_plugins
from grantledger.schemas.event import Resource

from .test_enforce_command_rules import command

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "enforcement.md").read_text("utf-8")
SMALL = '[targets.here]\nplugin = "exec"\ncommand = ["/bin/true"]\n[[routes]]\ntarget = "here"\n'


def policy(folder: Path, text: str) -> EnforcementPolicy:
    path = folder / "enforce.toml"
    path.write_text(text, "utf-8")
    return load_toml(path, EnforcementPolicy)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "targets"),
        ("[", "enforce.toml:1:"),
        (SMALL + 'color = "red"\n', ":6: routes 1.color: unknown key"),
        (SMALL.replace("exec", "carrier-pigeon"), "targets.here"),
        (SMALL.replace('target = "here"', 'target = "there"'), "there"),
        ("max_age_seconds = 0\n" + SMALL, "max_age_seconds"),
        (SMALL.replace('["/bin/true"]', '["true"]'), "absolute"),
        ('[targets.db]\nplugin = "postgresql"\nconninfo = ""\nactions = [{entitlement = "*"}]\n', "removes nothing"),
        ('[targets.db]\nplugin = "postgresql"\nconninfo = ""\nactions = [{entitlement = "*", privileges = '
         '[{privileges = ["USAGE"], on = "table", name = ["public", "t"]}]}]\n', "no privilege USAGE"),
        ('[targets.db]\nplugin = "postgresql"\nconninfo = ""\nactions = [{entitlement = "*", privileges = '
         '[{privileges = ["SELECT"], on = "table", name = ["t"]}]}]\n', "schema, table"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        policy(tmp_path, text)


def test_no_value_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        policy(tmp_path, SMALL + '[targets.x]\nplugin = "webhook"\nurl = "http://u:hunter2@x/"\nsecret = "hunter2"\n')
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_and_missing_secrets_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.toml"):
        load_toml(tmp_path / "missing.toml", EnforcementPolicy)
    hook = '[targets.hook]\nplugin = "webhook"\nurl = "https://x/"\nsecret = {SECRET}\n[[routes]]\ntarget = "hook"\n'
    for secret, named in (
        ('{env = "NOT_SET_4711"}', "targets.hook.*NOT_SET_4711"),
        (f'{{file = "{tmp_path}/none"}}', "targets.hook.*none"),
    ):
        found = policy(tmp_path, hook.replace("{SECRET}", secret))
        with pytest.raises(ConfigError, match=named):
            build_plugins(found, "test.example")
    for wrong in ("{}", '{env = "A", file = "b"}'):
        with pytest.raises(ConfigError, match="give either env"):
            policy(tmp_path, hook.replace("{SECRET}", wrong))


def test_a_world_writable_file_is_rejected(tmp_path: Path) -> None:
    policy(tmp_path, SMALL)
    (tmp_path / "enforce.toml").chmod(0o666)
    with pytest.raises(ConfigError, match="enforce.toml: anybody can write this file"):
        load_toml(tmp_path / "enforce.toml", EnforcementPolicy)


def test_the_first_route_that_fits_is_taken(tmp_path: Path) -> None:
    found = policy(
        tmp_path,
        '[targets.a]\nplugin = "exec"\ncommand = ["/bin/true"]\n[targets.b]\nplugin = "exec"\ncommand = ["/bin/true"]\n'
        '[[routes]]\ntarget = "a"\nresource_kind = "database"\nresource_id = "orders-*"\nenvironment = "production"\n'
        '[[routes]]\ntarget = "b"\nresource_kind = "database"\nentitlement = "read*"\n',
    )
    orders = Resource("database", "orders-eu", "production")

    def target(resource: Resource, **fields: object) -> str | None:
        route = found.route(command(resource=resource, **fields), signed=True)
        return route and route.target

    assert target(orders) == "a"
    assert target(Resource("database", "orders-eu")) == "b"
    assert target(Resource("database", "Orders-eu", "production")) == "b"
    assert target(Resource("cluster", "orders-eu", "production")) is None
    assert target(Resource("database", "x"), entitlement="admin") is None


@pytest.mark.parametrize(
    ("pattern", "source", "admitted"),
    [
        ("vault/prod", ("vault", "prod"), True),
        ("vault/prod", ("vault", "prod/x"), False),
        ("vault/prod", ("vault/prod", ""), False),
        ("vault/*", ("vault", "prod/x"), True),
        ("vault/*", ("vault", ""), True),
        ("vault/*", ("vault/evil", "prod"), False),
        ("vault", ("vault", "prod"), True),
        ("vault", ("vault2", "prod"), False),
        ("vault/", ("vault", "prod"), False),
        ("*", ("anything", "at all"), True),
        ("Vault/*", ("vault", "prod"), False),
    ],
)
def test_the_sources_of_a_route(pattern: str, source: tuple[str, str], admitted: bool) -> None:
    for signed in (False, True):
        assert Route(target="here", sources=(pattern,)).admits(source, signed=signed) == admitted
        assert Route(target="here").admits(source, signed=signed) == signed


def test_the_examples_of_the_page_are_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them together are one policy; only the secrets and the programs are not there."""
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    text = "\n".join(blocks)
    assert {word for word in ("webhook", "exec", "postgresql") if f'plugin = "{word}"' in text} == {
        "webhook", "exec", "postgresql",
    }  # fmt: skip
    for name in re.findall(r'env = "(\w+)"', text) + re.findall(r'pass_environment = \["(\w+)"\]', text):
        monkeypatch.setenv(name, "whsec_" + "A" * 44)
    text = re.sub(r'"/usr/local/bin/[^"]+"', '"/bin/true"', text)
    found = policy(tmp_path, re.sub(r'file = "[^"]+"', 'env = "SOME_SECRET"', text))
    monkeypatch.setenv("SOME_SECRET", "anything")
    plugins = build_plugins(found, "test.example")
    assert {plugin.kind for plugin in plugins.values()} == {"webhook", "exec", "postgresql"}
    assert {route.target for route in found.routes} == set(found.targets)


def test_the_client_of_the_database_is_needed_only_by_those_who_use_it() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from grantledger.enforcers.plugins import build_plugins\n"
        "from grantledger.base.toml import ConfigError, load_toml\n"
        "from grantledger.enforcers.enforcement_policy import EnforcementPolicy as Policy\n"
        "def policy(target): return Policy.model_validate({'targets': {'t': target}, 'routes': [{'target': 't'}]})\n"
        "build_plugins(policy({'plugin': 'exec', 'command': ['/bin/true']}), 'd')\n"
        "try: build_plugins(policy({'plugin': 'postgresql', 'conninfo': '', 'actions': "
        "[{'entitlement': '*', 'nologin': True}]}), 'd')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "targets.t needs psycopg: pip install 'grantledger[enforce]'" in done.stdout
