"""A Grafana that keeps what it is told, after Grafana's own OpenAPI document: what that does not allow fails the test.

It implements the operations in grafana_openapi.json, which says where it comes from, and GET /api/plugins/{id}/settings.
That one is checked by hand, since nothing that Grafana publishes describes it: neither its OpenAPI document nor its pages on
the HTTP API (looked for in November 2026). What it answers is `PluginSetting` of Grafana's pkg/api/dtos/plugins.go, of which
`id` and `info.version` are read. Each request is checked against its operation: known path and method, known
parameters, a body that the schema allows and has no field that it does not know. Each answer is checked as well. A data
source's health is tried in earnest, at the store that it names.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

DOCUMENT = json.loads((Path(__file__).parent / "grafana_openapi.json").read_text())
ADMIN, VIEWER = "glsa_admin", "glsa_viewer"


class FakeGrafana:
    """`problems` is what broke the document; `writes` counts what changed anything."""

    def __init__(self) -> None:
        self.version = "13.2.3"
        self.plugin: str | None = "4.20.0"
        self.folders: dict[str, dict[str, Any]] = {}
        self.datasources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, list[dict[str, Any]]] = {}  # uid -> versions, the newest last
        self.groups: dict[tuple[str, str], dict[str, Any]] = {}
        self.contacts: dict[str, dict[str, Any]] = {}
        self.redacts = False  # the URLs of contact points
        self.problems: list[str] = []
        self.writes = 0

    def edit_dashboard(self, uid: str, **changes: Any) -> None:
        """As somebody does in the browser."""
        newest = self.dashboards[uid][-1]
        edited = json.loads(json.dumps(newest["dashboard"])) | changes
        self._save_dashboard(uid, edited, newest["folderUid"], "", "eve")

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST", "PUT", "DELETE"])])

    async def _serve(self, request: Request) -> Response:
        path = "/" + request.path_params["path"]
        if not path.startswith("/api/"):
            return HTMLResponse("<html>Grafana</html>")
        path = path.removeprefix("/api")
        if path == "/health":
            return self._answer({}, 200, {"database": "ok", "version": self.version, "commit": "made"})
        role = {f"Bearer {ADMIN}": "Admin", f"Bearer {VIEWER}": "Viewer"}.get(request.headers.get("authorization", ""))
        if role is None:
            return JSONResponse({"message": "Invalid API key"}, 401)
        if path.startswith("/plugins/"):
            return self._plugin()
        raw = await request.body()
        body = json.loads(raw) if raw and raw != b"null" else None
        operation, names = self._operation(request.method, path)
        if operation is None:
            self.problems.append(f"Grafana's document has no {request.method} {path}")
            return JSONResponse({"message": "Not found"}, 404)
        self._check_request(operation, request, body)
        if role != "Admin" and request.method != "GET":
            return JSONResponse({"message": "You'll need additional permissions to perform this action."}, 403)
        self.writes += request.method != "GET"
        status, answer = getattr(self, "_" + operation["operationId"])(names, body, request)
        return self._answer(operation, status, answer)

    def _plugin(self) -> Response:
        if self.plugin is None:
            return JSONResponse({"message": "Plugin not found, no installed plugin with that id"}, 404)
        return JSONResponse({"id": "grafana-clickhouse-datasource", "info": {"version": self.plugin}})

    def _operation(self, method: str, path: str) -> tuple[dict[str, Any] | None, dict[str, str]]:
        given = path.strip("/").split("/")
        for template, methods in DOCUMENT["paths"].items():
            parts = template.strip("/").split("/")
            if len(parts) == len(given) and all(p == g or p[0] == "{" for p, g in zip(parts, given, strict=True)):
                names = {p[1:-1]: g for p, g in zip(parts, given, strict=True) if p[0] == "{"}
                if method.lower() in methods:
                    return methods[method.lower()], names
        return None, {}

    def _check_request(self, operation: dict[str, Any], request: Request, body: Any) -> None:
        name = operation["operationId"]
        known = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
        if unknown := set(request.query_params) - known:
            self.problems.append(f"{name} has no parameters {sorted(unknown)}")
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            self._validate(f"{name}: body", _with_components(schema, closed=True), body)
        elif body is not None:
            self.problems.append(f"{name} takes no body")

    def _answer(self, operation: dict[str, Any], status: int, answer: Any) -> Response:
        response = operation.get("responses", {}).get(str(status), {})
        if operation and not response and status < 400:
            self.problems.append(f"{operation['operationId']} does not answer {status}")
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            self._validate(f"{operation['operationId']}: our answer {status}", _with_components(schema), answer)
        return JSONResponse(answer, status)

    def _validate(self, where: str, schema: dict[str, Any], value: Any) -> None:
        for error in jsonschema.Draft7Validator(schema).iter_errors(value):
            at = ".".join(map(str, error.absolute_path))
            self.problems.append(f"{where}: {at}: {error.message[:300]}")

    # operations, by their names in the document

    def _getFolderByUID(self, names: dict[str, str], _body: Any, _request: Request) -> tuple[int, Any]:
        found = self.folders.get(names["folder_uid"])
        return (200, found) if found else (404, {"message": "folder not found"})

    def _createFolder(self, _names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "version": 1, **body}
        return 200, self.folders[body["uid"]]

    def _updateFolder(self, names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        folder = self.folders[names["folder_uid"]]
        if body.get("version") != folder["version"]:
            return 409, {"message": "the folder has been changed by someone else"}
        folder |= {"title": body["title"], "version": folder["version"] + 1}
        return 200, folder

    def _getDataSourceByUID(self, names: dict[str, str], _body: Any, _request: Request) -> tuple[int, Any]:
        found = self.datasources.get(names["uid"])
        return (200, _shown(found)) if found else (404, {"message": "Data source not found"})

    def _addDataSource(self, _names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        number = len(self.datasources) + 1
        made = {
            "id": number,
            "orgId": 1,
            "version": 1,
            "readOnly": False,
            "isDefault": False,
            "basicAuth": False,
            **body,
        }
        self.datasources[body["uid"]] = made
        return 200, {"id": number, "name": body["name"], "message": "Datasource added", "datasource": _shown(made)}

    def _updateDataSourceByUID(self, names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        old = self.datasources[names["uid"]]
        self.datasources[names["uid"]] = made = {**old, **body, "version": old["version"] + 1}
        return 200, {
            "id": made["id"],
            "name": made["name"],
            "message": "Datasource updated",
            "datasource": _shown(made),
        }

    def _checkDatasourceHealthWithUID(self, names: dict[str, str], _body: Any, _request: Request) -> tuple[int, Any]:
        found = self.datasources.get(names["uid"])
        if not found:
            return 404, {"message": "Data source not found"}
        at = found["jsonData"]
        url = f"http://{at['host']}:{at['port']}/?database={at['defaultDatabase']}"
        auth = (at["username"], found["secureJsonData"]["password"])
        try:
            answer = httpx.post(url, auth=auth, content="SELECT 1", trust_env=False)
        except httpx.HTTPError as error:
            return 400, {"message": f"connect: {error}"}
        if answer.text != "1\n":
            return 400, {"message": answer.text}
        return 200, {"status": "OK", "message": "Data source is working"}

    def _getDashboardByUID(self, names: dict[str, str], _body: Any, _request: Request) -> tuple[int, Any]:
        versions = self.dashboards.get(names["uid"])
        if not versions:
            return 404, {"message": "Dashboard not found"}
        newest = versions[-1]
        meta = {"folderUid": newest["folderUid"], "version": len(versions), "provisioned": newest.get("file", False)}
        return 200, {"dashboard": newest["dashboard"], "meta": meta}

    def _postDashboard(self, _names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        dashboard = body["dashboard"]
        uid = dashboard["uid"]
        versions = self.dashboards.get(uid, [])
        if versions and versions[-1].get("file"):
            return 400, {"message": "Cannot save provisioned dashboard"}
        if versions and dashboard.get("version") != len(versions) and not body.get("overwrite"):
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        self._save_dashboard(uid, dashboard, body["folderUid"], body.get("message", ""), "sa-loadtest")
        answer = {"id": 1, "uid": uid, "url": f"/d/{uid}", "status": "success", "title": dashboard["title"]}
        return 200, answer | {"version": len(self.dashboards[uid]), "folderUid": body["folderUid"]}

    def _save_dashboard(self, uid: str, dashboard: dict[str, Any], folder: str, message: str, by: str) -> None:
        versions = self.dashboards.setdefault(uid, [])
        number = len(versions) + 1
        kept = {**dashboard, "id": 1, "version": number}
        versions.append({"dashboard": kept, "folderUid": folder, "message": message, "createdBy": by})

    def _getDashboardVersionsByUID(self, names: dict[str, str], _body: Any, request: Request) -> tuple[int, Any]:
        versions = list(enumerate(self.dashboards[names["uid"]], 1))[::-1][
            : int(request.query_params.get("limit", 1000))
        ]
        told = [
            {"id": n, "uid": names["uid"], "version": n, "message": v["message"], "createdBy": v["createdBy"]}
            for n, v in versions
        ]
        return 200, {"continueToken": "", "versions": told}

    def _GetAlertRuleGroup(self, names: dict[str, str], _body: Any, _request: Request) -> tuple[int, Any]:
        found = self.groups.get((names["FolderUID"], names["Group"]))
        return (200, found) if found else (404, {"message": "rule group does not exist"})

    def _PutAlertRuleGroup(self, names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        for number, rule in enumerate(body["rules"], 1):
            receiver = rule.get("notification_settings", {}).get("receiver")
            if receiver and receiver not in {contact["name"] for contact in self.contacts.values()}:
                return 400, {"msg": f"contact point {receiver} does not exist"}
            rule |= {"id": number, "provenance": "api"}
        self.groups[names["FolderUID"], names["Group"]] = body
        return 200, body

    def _GetContactpoints(self, _names: dict[str, str], _body: Any, request: Request) -> tuple[int, Any]:
        name = request.query_params.get("name")
        found = [contact for contact in self.contacts.values() if name in (None, contact["name"])]
        shown = {"url": "[REDACTED]"} if self.redacts else {}
        return 200, [contact | {"settings": contact["settings"] | shown} for contact in found]

    def _PostContactpoints(self, _names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        self.contacts[body["uid"]] = {**body, "provenance": "api"}
        return 202, self.contacts[body["uid"]]

    def _PutContactpoint(self, names: dict[str, str], body: Any, _request: Request) -> tuple[int, Any]:
        self.contacts[names["UID"]] = {**body, "provenance": "api"}
        return 202, {"message": "contactpoint updated"}


def _shown(datasource: dict[str, Any]) -> dict[str, Any]:
    """As Grafana shows it: of what is secret only that it is there."""
    secret = datasource.get("secureJsonData", {})
    open_ = {name: value for name, value in datasource.items() if name != "secureJsonData"}
    return {**open_, "secureJsonFields": dict.fromkeys(secret, True)}


def _with_components(schema: dict[str, Any], closed: bool = False) -> dict[str, Any]:
    """The schema with its references' targets. Closed: an object has no other fields than those named."""
    components = {
        name: each | ({"additionalProperties": False} if closed and "properties" in each else {})
        for name, each in DOCUMENT["components"]["schemas"].items()
    }
    return {**schema, "components": {"schemas": components}}


@contextmanager
def serving(fake: FakeGrafana) -> Iterator[str]:
    """The URL of a running server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(fake.app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
