"""The way to a Grafana, through grafana-client; its errors become sentences here, and only here."""

import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from dashboards.grafana.build import PLUGIN
from loadtest.errors import UserError

OLDEST = (11, 0)
OLDEST_PLUGIN = (4, 0)
TIMEOUT_S = 30.0


class NotThere(UserError):
    pass


class Grafana:
    """A Grafana that answers, lets us in, and has the plugin. Raises UserError saying which of these is not so."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        wrong = UserError(f"{url} is no URL of a Grafana; write one such as http://127.0.0.1:3000")
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is none
            raise wrong from None
        if not usable:
            raise wrong
        if parts.username or parts.password:
            raise UserError("the URL of a Grafana holds a password, which others see; give a token by --token")
        try:
            from grafana_client.api import GrafanaApi
        except ImportError:
            raise UserError("grafana-client is not installed; pip install 'grafana-client==5.1.*'") from None
        self._api = GrafanaApi.from_url(f"{self.url}/" if parts.path else self.url, credential=token, timeout=TIMEOUT_S)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._api.client.s.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError

        try:
            return getattr(self._api.client, method)(path, json=body, accept_empty_json=True)
        except GrafanaUnauthorizedError:
            raise UserError(
                f"Grafana at {self.url} does not know the token; make one for a service account with the role Admin "
                "(Administration, Service accounts), and give it by --token env:NAME or file:PATH"
            ) from None
        except GrafanaClientError as error:
            if error.status_code == 404:
                raise NotThere(f"Grafana at {self.url} has no {path}") from None
            if error.status_code == 403:
                raise UserError(
                    f"Grafana at {self.url} does not let the token's account do this: {method} {path}; give that account "
                    "the role Admin"
                ) from None
            raise UserError(f"Grafana at {self.url} refused {method} {path}: {error.message}") from None
        except GrafanaException as error:
            raise UserError(f"Grafana at {self.url} failed at {method} {path}: {error.message}") from None
        except (
            OSError,
            ValueError,
        ) as error:  # niquests' exceptions are OSErrors; an answer that is no JSON a ValueError
            raise UserError(f"no Grafana answers at {self.url}: {_reason(error, self.url)}") from None

    def find(self, path: str) -> Any:
        """None where it is not there."""
        try:
            return self.call("GET", path)
        except NotThere:
            return None

    def _check(self) -> None:
        try:
            health = self.call("GET", "/health")
        except NotThere:
            health = None
        if not isinstance(health, dict) or "version" not in health:
            raise UserError(f"what answers at {self.url} is no Grafana; is the path of the URL right?")
        if _version(health["version"]) < OLDEST:
            raise UserError(
                f"Grafana at {self.url} is version {health['version']}; the dashboards need {OLDEST[0]} or newer"
            )
        plugin = self.find(f"/plugins/{PLUGIN}/settings")
        if plugin is None:
            raise UserError(
                f"Grafana at {self.url} lacks the ClickHouse plugin: grafana cli plugins install {PLUGIN}, then start "
                "Grafana anew"
            )
        version = plugin.get("info", {}).get("version", "0")
        if _version(version) < OLDEST_PLUGIN:
            raise UserError(
                f"Grafana at {self.url} has the ClickHouse plugin in version {version}; the dashboards need "
                f"{OLDEST_PLUGIN[0]} or newer: grafana cli plugins update {PLUGIN}"
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _reason(error: Exception, url: str) -> str:
    """What the innermost error means, and what to do about it."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    parts = urlsplit(url)
    words = str(cause)
    if isinstance(cause, ConnectionRefusedError):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"nothing listens at port {port} of {parts.hostname}; start Grafana, or correct the URL (its own port is 3000)"
    if isinstance(cause, socket.gaierror):
        return f"no address is known for the name {parts.hostname}; correct the URL's host"
    if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in words:
        why = re.sub(r"^.*certificate verify failed: | \(_ssl\.c:\d+\)$", "", words)
        return (
            f"its certificate is not trusted ({why}); add its authority to this machine's certificates, or name the file in "
            "REQUESTS_CA_BUNDLE"
        )
    if isinstance(cause, ssl.SSLError) or "SSL" in type(cause).__name__:
        return f"it does not speak TLS there; write {parts._replace(scheme='http').geturl()}, or the port that does"
    if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
        return f"no answer within {TIMEOUT_S:g} s; is the host right, and is a firewall in between?"
    if isinstance(cause, OSError):
        return f"{cause.strerror or words}; correct the URL, or look at Grafana's log"[:200]
    return "its answer is not Grafana's; correct the URL's host, port and path"
