"""`loadtest dashboards push | pull | diff`: what a Grafana must hold, compared with what it holds.

Everything is an `Item`: what we want, what is there, whether somebody else has changed that since, and how to write it.
Push looks at all of them before it writes one, and writes nothing while there is a conflict, unless it is told to
overwrite. Who changed a thing is told by Grafana itself: a dashboard's newest version has our message or somebody's; a
rule and a contact point have their provenance; the data source carries the digest of what we wrote.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from dashboards.grafana import build, rules
from dashboards.grafana.build import DATASOURCE_UID, FOLDER_UID, PLUGIN
from dashboards.grafana.client import Grafana, NotThere
from loadtest.errors import UserError
from loadtest.store import Address

CONTACT = "loadtest"
MESSAGE = "loadtest dashboards push"
DIGEST = "loadtestDigest"
FOLDER_TITLE = "loadtest"
BROWSER_FIELDS = ("id", "version", "iteration", "uid")


REDACTED = "[REDACTED]"
"""What Grafana shows in place of a setting that it takes for a secret, such as, by its version, the URL of a webhook."""


class Conflict(UserError):
    exit_status = 1


class Item(Struct, frozen=True):
    """One thing in Grafana. `theirs` is None where it is not there; `changed_by` is empty where that was us."""

    name: str
    ours: Any
    theirs: Any
    changed_by: str
    write: Callable[[], None]
    secret: bool = False  # its values are not printed

    @property
    def differences(self) -> list[str]:
        if self.theirs is None:
            return ["is not there"]
        found = list(_differences(self.ours, self.theirs, ""))
        if self.hidden and self.changed_by:
            found.append("was changed by others")
        return ["is another one"] if found and self.secret else found

    @property
    def hidden(self) -> bool:
        """Grafana does not show all of it: whether that is ours still, only who wrote it last can tell."""
        return REDACTED in json.dumps(self.theirs)

    @property
    def conflict(self) -> str:
        return self.changed_by if self.theirs is not None and self.differences else ""


class Wanted(Struct, frozen=True):
    """What the whole of it depends on."""

    address: Address  # of the store, as Grafana reaches it, with a user who only reads
    contact_url: str | None = None  # a webhook that is told of alerts
    runbook: str = rules.RUNBOOK


def diff(grafana: Grafana, wanted: Wanted) -> list[str]:
    """Lines of what is not as it should be; empty: nothing has drifted."""
    found = [f"{item.name}: {line}" for item in items(grafana, wanted) for line in item.differences]
    return found + _unhealthy(grafana)


def push(grafana: Grafana, wanted: Wanted, overwrite: bool) -> list[str]:
    """Bring Grafana to what is wanted. Returns a line for each thing; raises Conflict before anything is written."""
    found = list(items(grafana, wanted))
    conflicts = [f"{item.name} {item.conflict}" for item in found if item.conflict]
    if conflicts and not overwrite:
        lines = "\n  ".join(conflicts)
        raise Conflict(
            f"nothing was pushed, for this would be lost:\n  {lines}\n"
            "`loadtest dashboards diff` shows how, `pull` keeps it in files, `push --overwrite` overwrites it"
        )
    told = []
    for item in found:
        if item.differences or item.hidden:
            item.write()
        told.append(f"{item.name}: {_word(item)}")
    if _unhealthy(grafana):  # a password cannot be compared: it is written anew where the present one does not work
        grafana.call("PUT", f"/datasources/uid/{DATASOURCE_UID}", _datasource(wanted.address))
        if complaints := _unhealthy(grafana):
            raise UserError("\n".join(complaints))
    return [*told, "data source: healthy"]


def pull(grafana: Grafana, wanted: Wanted, directory: Path) -> list[Path]:
    """Write what Grafana holds of ours as JSON files, without what only Grafana knows."""
    written = []
    for item in items(grafana, wanted):
        if item.theirs is not None and not item.secret:
            path = directory / f"{item.name.replace(' ', '-')}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(item.theirs, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            written.append(path)
    return written


def items(grafana: Grafana, wanted: Wanted) -> Iterator[Item]:
    """In the order in which they need each other."""
    yield _of_folder(grafana)
    yield _of_datasource(grafana, wanted.address)
    if wanted.contact_url:
        yield _of_contact(grafana, wanted.contact_url)
    for name, made in build.dashboards().items():
        yield _of_dashboard(grafana, name, made)
    yield _of_rules(grafana, wanted)


def _word(item: Item) -> str:
    if item.theirs is None:
        return "created"
    if item.hidden and not item.differences:
        return "written anew, since Grafana does not show what it holds"
    return ("overwritten" if item.conflict else "updated") if item.differences else "unchanged"


def _of_folder(grafana: Grafana) -> Item:
    ours = {"uid": FOLDER_UID, "title": FOLDER_TITLE}
    theirs = grafana.find(f"/folders/{FOLDER_UID}")

    def write() -> None:
        if theirs is None:
            grafana.call("POST", "/folders", ours)
        else:
            body = {"title": FOLDER_TITLE, "version": theirs["version"]}
            grafana.call("PUT", f"/folders/{FOLDER_UID}", body)

    return Item("folder", ours, theirs, "was renamed", write)


def _of_datasource(grafana: Grafana, address: Address) -> Item:
    ours = _datasource(address)
    theirs = grafana.find(f"/datasources/uid/{DATASOURCE_UID}")
    compared = {name: value for name, value in ours.items() if name != "secureJsonData"}
    changed_by = ""
    if theirs and theirs.get("readOnly"):
        changed_by = "comes from a file of Grafana's provisioning, which alone can change it"
    elif theirs and _digest(theirs) != theirs["jsonData"].get(DIGEST):
        changed_by = "was edited in Grafana"

    def write() -> None:
        if theirs is None:
            grafana.call("POST", "/datasources", ours)
        else:
            grafana.call("PUT", f"/datasources/uid/{DATASOURCE_UID}", ours)

    return Item("data source", compared, theirs, changed_by, write)


def _datasource(address: Address) -> dict[str, Any]:
    made = {
        "uid": DATASOURCE_UID,
        "name": "loadtest",
        "type": PLUGIN,
        "access": "proxy",
        "jsonData": {
            "host": f"[{address.host}]"
            if ":" in address.host
            else address.host,  # the plugin appends the port as it is
            "port": address.port,
            "protocol": "http",
            "secure": address.scheme == "https",
            "username": address.user,
            "defaultDatabase": address.database,
        },
        "secureJsonData": {"password": address.password},
    }
    return {**made, "jsonData": {**made["jsonData"], DIGEST: _digest(made)}}  # type: ignore[dict-item]


def _digest(datasource: Mapping[str, Any]) -> str:
    """Of what we write in a data source, to tell later whether it still is that. The password is not in it."""
    known = ("host", "port", "protocol", "secure", "username", "defaultDatabase")
    told = [datasource["name"], datasource["type"], *(datasource["jsonData"].get(name) for name in known)]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def _unhealthy(grafana: Grafana) -> list[str]:
    try:
        health = grafana.call("GET", f"/datasources/uid/{DATASOURCE_UID}/health")
    except NotThere:
        return ["data source: is not there"]
    except UserError as error:
        return [f"data source: Grafana does not reach the store with it: {error}"]
    if health.get("status", "OK") == "OK":
        return []
    return [f"data source: Grafana does not reach the store with it: {health.get('message')}"]


def _of_contact(grafana: Grafana, url: str) -> Item:
    ours = {"uid": CONTACT, "name": CONTACT, "type": "webhook", "settings": {"url": url, "httpMethod": "POST"}}
    found = grafana.call("GET", f"/v1/provisioning/contact-points?name={CONTACT}")
    theirs = next((each for each in found if each["uid"] == CONTACT), None)
    changed_by = _not_ours(theirs) if theirs else ""

    def write() -> None:
        if theirs is None:
            grafana.call("POST", "/v1/provisioning/contact-points", ours)
        else:
            grafana.call("PUT", f"/v1/provisioning/contact-points/{CONTACT}", ours)

    return Item("contact point", ours, theirs, changed_by, write, secret=True)


def _of_dashboard(grafana: Grafana, name: str, ours: dict[str, Any]) -> Item:
    uid = build.uid(name)
    there = grafana.find(f"/dashboards/uid/{uid}")
    theirs, changed_by = None, ""
    if there is not None:
        theirs = {key: value for key, value in there["dashboard"].items() if key not in BROWSER_FIELDS} | {"uid": uid}
        if there["meta"].get("provisioned"):
            changed_by = "comes from a file of Grafana's provisioning, which alone can change it"
        else:
            changed_by = _edited_by(grafana, uid)

    def write() -> None:
        dashboard = ours | ({"version": there["dashboard"]["version"]} if there else {})
        body = {"dashboard": dashboard, "folderUid": FOLDER_UID, "message": MESSAGE, "overwrite": False}
        grafana.call("POST", "/dashboards/db", body)

    return Item(f"dashboard {name}", ours, theirs, changed_by, write)


def _edited_by(grafana: Grafana, uid: str) -> str:
    answer = grafana.call("GET", f"/dashboards/uid/{uid}/versions?limit=1")
    versions = answer["versions"] if isinstance(answer, dict) else answer
    newest = max(versions, key=lambda each: each["version"], default=None)
    if newest is None or newest.get("message") == MESSAGE:
        return ""
    return f"was edited in Grafana (version {newest['version']} by {newest.get('createdBy') or 'somebody'})"


def _of_rules(grafana: Grafana, wanted: Wanted) -> Item:
    path = f"/v1/provisioning/folder/{quote(FOLDER_UID)}/rule-groups/{quote(rules.GROUP)}"
    ours = rules.group(CONTACT if wanted.contact_url else None, wanted.runbook)
    theirs = grafana.find(path)
    changed_by = next(filter(None, map(_not_ours, theirs["rules"] if theirs else [])), "")
    if theirs:
        order = {each["uid"]: number for number, each in enumerate(ours["rules"])}
        known = sorted(theirs["rules"], key=lambda each: order.get(each["uid"], len(order)))
        theirs = theirs | {"rules": known}
    return Item("alert rules", ours, theirs, changed_by, lambda: grafana.call("PUT", path, ours))


def _not_ours(theirs: Mapping[str, Any]) -> str:
    match theirs.get("provenance"):
        case "api":
            return ""
        case "file":
            return "comes from a file of Grafana's provisioning, which alone can change it"
        case _:
            return "was made or edited in Grafana"


def _differences(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    """What we say and Grafana does not. What Grafana adds to an object are its defaults; a list must be ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from _differences(value, theirs.get(key), f"{where}.{key}" if where else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{where}[{number}]")
    elif ours != theirs and theirs != REDACTED and not (theirs is None and not ours):
        yield f"{where} is {_short(theirs)}, not {_short(ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
