"""A minimal client for a Confluent-compatible schema registry: it registers a schema and returns its id.

The registry client of confluent-kafka needs httpx, authlib, attrs, cachetools and certifi. A sender needs only one call
(``POST /subjects/(subject)/versions``), for which the standard library is enough.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from ..base.errors import DependencyError
from .options import OptionError

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_RESPONSE_BYTES = 1024 * 1024


class RegistryError(DependencyError):
    """The registry is not reachable or rejected the schema. The message names the registry and the setting to check."""


class SchemaRegistry:
    """Registers schemas under ``<topic>-value`` and caches their ids.

    Args:
        url: the ``http://`` or ``https://`` base address, without credentials.
        username: for basic authentication, together with ``password``.
        password: for basic authentication.
        timeout: the timeout of one request in seconds.

    Raises:
        OptionError: the address is not http(s) or contains credentials, or only one of user name and password is given.
    """

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, timeout: float = 10.0
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError("schema registry url", f"{url!r} is not an http:// or https:// address")
        if parts.username or parts.password:
            raise OptionError("schema registry url", "must not contain credentials; use the separate settings")
        if (username is None) != (password is None):
            raise OptionError("schema registry credentials", "set both user name and password, or neither")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._authorization: str | None = None
        if username is not None:
            pair = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            self._authorization = f"Basic {pair}"
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, topic: str, schema_text: str) -> int:
        """Return the registry's id for the Avro schema of a topic's values. Registers the schema on the first call.

        Raises:
            RegistryError: not reachable, not authorized (401, 403), incompatible (409), or no id in the response.
        """
        known = self._ids.get((topic, schema_text))
        if known is not None:
            return known
        subject = urllib.parse.quote(f"{topic}-value", safe="")
        result = self._post(f"/subjects/{subject}/versions", {"schemaType": "AVRO", "schema": schema_text})
        schema_id = result.get("id")
        if not isinstance(schema_id, int) or isinstance(schema_id, bool) or not 0 <= schema_id < 2**32:
            raise RegistryError(f"schema registry {self.url}: no schema id in the response for {topic}-value")
        self._ids[(topic, schema_text)] = schema_id
        return schema_id

    def _post(self, path: str, body: dict[str, str]) -> dict[str, object]:
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        request = urllib.request.Request(  # noqa: S310 - the constructor checked the scheme
            self.url + path, data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                text = response.read(MAX_RESPONSE_BYTES)
        except urllib.error.HTTPError as error:
            raise RegistryError(self._problem(error)) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise RegistryError(f"schema registry {self.url}: not reachable ({reason}); check its url") from error
        try:
            result = json.loads(text)
        except ValueError as error:
            raise RegistryError(f"schema registry {self.url}: the response is not JSON; check its url") from error
        if not isinstance(result, dict):
            raise RegistryError(f"schema registry {self.url}: the response is not a JSON object; check its url")
        return result

    def _problem(self, error: urllib.error.HTTPError) -> str:
        detail = error.read(1000).decode("utf-8", "replace").strip()
        if error.code in (401, 403):
            return f"schema registry {self.url}: not authorized ({error.code}); check the user name and password"
        if error.code == 409:
            return f"schema registry {self.url}: the event schema is incompatible with the registered one: {detail}"
        return f"schema registry {self.url}: HTTP {error.code}: {detail}"
