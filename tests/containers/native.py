"""Runs a compose service without a container engine, as close to one as the kernel allows.

Each has a network namespace of its own on one bridge, whose names /etc/hosts knows; a mount namespace whose root is
read-only but for the service's tmpfs and volumes, with its secrets at /run/secrets; the user 10001 with no capability and
no way to new ones. Programs are this machine's: the Python environment is made from the image's lock file, as in the
Dockerfile. Needs root.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
IMAGE = ROOT / ".venv-image"
"""What the image has at /opt/loadtest."""
UID = 10001
SEEN = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
ENTER = r"""
set -eu
mount --make-rprivate /
root=$1 hosts=$2 secrets=$3 tmpfs=$4 binds=$5; shift 5
mount -t tmpfs tmpfs "$root"
mkdir -p "$root"/{proc,dev,sys,tmp,run/secrets}
bind() { mkdir -p "$root$2"; mount --rbind "$1" "$root$2"; mount -o remount,bind,ro "$root$2" 2>/dev/null || true; }
for path in $SEEN; do
    if [ -L "$path" ]; then cp -P "$path" "$root$path"; elif [ -d "$path" ]; then bind "$path" "$path"; fi
done
cp -a /etc "$root/etc"
mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"; mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/dev/shm"
cp "$hosts" "$root/etc/hosts"; echo "nameserver 127.0.0.1" > "$root/etc/resolv.conf"  # refuses at once; hosts are enough
for path in $tmpfs; do mkdir -p "$root$path"; mount -t tmpfs -o uid="$UID_" tmpfs "$root$path"; done
for pair in $binds; do
    source=${pair%%:*} target=${pair#*:}
    case $target in
        *:rw) target=${target%:rw}; mkdir -p "$root$target"; mount --bind "$source" "$root$target" ;;
        *) if [ -d "$source" ]; then bind "$source" "$target"; else
               mkdir -p "$root${target%/*}"; touch "$root$target"; mount --bind -o ro "$source" "$root$target"; fi ;;
    esac
done
cp $secrets/* "$root/run/secrets" 2>/dev/null || true
mount -o remount,ro "$root"
cd "$root"
exec chroot "$root" setpriv --reuid "$UID_" --regid 0 --clear-groups --bounding-set=-all --no-new-privs \
    --inh-caps=-all env -i "$@"
"""


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return document


def of_image() -> dict[str, str]:
    """The environment that the Dockerfile gives every container."""
    last = (ROOT / "deploy/Dockerfile").read_text().rpartition("\nFROM ")[2]
    (lines,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", last, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in lines.replace("\\\n", " ").split())


def text(value: Any) -> str:
    """A value with its variables at their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.3)
    return found


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """A bridge in a namespace of its own, and a namespace for each service. `with` removes them."""

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self.directory = directory
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._prefix = f"lt{os.getpid()}"
        self.hosts = directory / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        self.hosts.write_text("\n".join(lines) + "\n")

    def namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def __enter__(self) -> "Network":
        switch = self.namespace("switch")
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for number, (name, address) in enumerate(self.addresses.items()):
            namespace = self.namespace(name)
            ip("netns", "add", namespace)
            ip("-n", switch, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
            ip("-n", switch, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "route", "add", "default", "dev", "eth0")  # by which a program finds its own address
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self.addresses, "switch"):
            ip("netns", "del", self.namespace(name))


class Container:
    """One running service."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.environment = environment
        self.log = log
        self._process = process

    def run(self, command: Sequence[str], within_s: float = 60, **more: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose exec`."""
        variables = [f"{key}={value}" for key, value in {**self.environment, **more}.items()]
        return subprocess.run(
            [
                "nsenter", "--target", str(self._process.pid), "--mount", "--net", "--root", "--wdns=/data",
                "setpriv", "--reuid", str(UID), "--regid", "0", "--clear-groups", "--bounding-set=-all",
                "--no-new-privs", "env", "-i", *variables, *command,
            ],
            capture_output=True, text=True, timeout=within_s,
        )  # fmt: skip

    def healthy(self) -> bool:
        kind, *command = compose()["services"][self.name]["healthcheck"]["test"]
        assert kind == "CMD"
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}: {self.log.read_text()[-3000:]}")
        return self.run(command).returncode == 0

    def wait(self, within_s: float) -> int:
        return self._process.wait(within_s)

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@contextmanager
def started(
    network: Network,
    service: str,
    secrets: Path,
    command: Sequence[str] | None = None,
    at: str | None = None,
    binds: Sequence[str] = (),
) -> Iterator[Container]:
    """A service of compose.yaml, by its own command unless another is given, at the address of `at`."""
    document = compose()
    given = document["services"][service]
    directory = network.directory / (at or service)
    root = directory / "root"
    mounted = directory / "secrets"
    for path in (root, mounted):
        path.mkdir(parents=True)
    for secret in given.get("secrets", []):
        source = secret if isinstance(secret, str) else secret["source"]
        name = os.path.basename(document["secrets"][source]["file"])
        (mounted / source).write_bytes((secrets / name).read_bytes())
    volumes = [
        text(volume).removesuffix(":ro").replace("./", f"{ROOT}/deploy/", 1) if text(volume).startswith("./") else ""
        for volume in given.get("volumes", [])
    ]
    writable = [path.partition(":")[0] for path in given["tmpfs"]] if "tmpfs" in given else []
    named = [text(volume) for volume in given.get("volumes", []) if not text(volume).startswith((".", "/"))]
    writable += [volume.split(":")[1] for volume in named]
    path = f"{IMAGE}/bin:{ROOT}/.tools/bin:/usr/bin:/bin"
    environment = {
        **of_image(), "PATH": path, **{key: text(value) for key, value in given.get("environment", {}).items()},
    }  # fmt: skip
    argv = command or [*given.get("entrypoint", ["loadtest"]), *map(str, given["command"])]
    wanted = [str(IMAGE), sys.base_prefix, f"{ROOT}/.tools", f"{ROOT}/tests/containers"]
    pairs = [*(f"{found}:{found}" for found in wanted if Path(found).exists()), *filter(None, volumes), *binds]
    pairs = [pair for pair in pairs if Path(pair.split(":")[0]).exists()]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "ip", "netns", "exec", network.namespace(at or service), "unshare", "--mount", "bash", "-c", ENTER, "_",
                root, network.hosts, mounted, " ".join(dict.fromkeys([*writable, "/data"])), " ".join(pairs),
                *(f"{key}={value}" for key, value in environment.items()), *argv,
            ],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={"PATH": os.environ["PATH"], "SEEN": " ".join(SEEN), "UID_": str(UID)},
        )  # fmt: skip
    container = Container(service, process, environment, log)
    try:
        yield container
    finally:
        container.stop()
