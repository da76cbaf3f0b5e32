"""A Confluent-compatible schema registry, as far as a sender needs it: register one schema, get its id.

confluent-kafka has a registry client, but its import needs httpx, authlib, attrs, cachetools and certifi, which a
sender does not install. One POST of the REST API ("POST /subjects/(subject)/versions") is all that is used, so the
standard library does.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from ..base.errors import DependencyError

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_ANSWER_BYTES = 1024 * 1024


class RegistryError(DependencyError):
    """The registry could not be asked, or refused. The message names the registry and the setting to look at."""


class SchemaRegistry:
    """Registers schemas under ``<topic>-value`` and remembers their ids.

    Args:
        url: ``http://`` or ``https://`` base address, without credentials in it.
        username: for basic authentication, together with ``password``.
        password: for basic authentication.
        timeout: seconds for one request.

    Raises:
        RegistryError: the address is not http(s) or holds credentials, or only one of user name and password is given.
    """

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, timeout: float = 10.0
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"schema registry url: {url!r} is not an http:// or https:// address")
        if parts.username or parts.password:
            raise RegistryError("schema registry url: give user name and password as settings, not in the address")
        if (username is None) != (password is None):
            raise RegistryError("schema registry username and password: give both, or neither")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._authorization: str | None = None
        if username is not None:
            pair = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            self._authorization = f"Basic {pair}"
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, topic: str, schema_text: str) -> int:
        """Return the registry's id for an Avro schema as the value of a topic; registers it the first time.

        Raises:
            RegistryError: not reachable, refused (401, 403), incompatible (409), or an answer that is no id.
        """
        known = self._ids.get((topic, schema_text))
        if known is not None:
            return known
        subject = urllib.parse.quote(f"{topic}-value", safe="")
        answer = self._post(f"/subjects/{subject}/versions", {"schemaType": "AVRO", "schema": schema_text})
        schema_id = answer.get("id")
        if not isinstance(schema_id, int) or isinstance(schema_id, bool) or not 0 <= schema_id < 2**32:
            raise RegistryError(f"schema registry {self.url}: answered without a schema id for {topic}-value")
        self._ids[(topic, schema_text)] = schema_id
        return schema_id

    def _post(self, path: str, body: dict[str, str]) -> dict[str, object]:
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked to be http(s)
            self.url + path, data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                text = response.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            raise RegistryError(self._refusal(error)) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise RegistryError(f"schema registry {self.url}: not reachable ({reason}); check its url") from error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise RegistryError(f"schema registry {self.url}: the answer is not JSON; check its url") from error
        if not isinstance(answer, dict):
            raise RegistryError(f"schema registry {self.url}: the answer is not a JSON object; check its url")
        return answer

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        detail = error.read(1000).decode("utf-8", "replace").strip()
        if error.code in (401, 403):
            return f"schema registry {self.url}: refused ({error.code}); check its username and password"
        if error.code == 409:
            return f"schema registry {self.url}: the event schema is incompatible with the one registered: {detail}"
        return f"schema registry {self.url}: answered {error.code}: {detail}"
