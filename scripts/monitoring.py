"""A real Prometheus beside a real `camring serve`: alerts fire with the scrape after a fault and clear after it.

    monitoring.py CAMRING [--own-mounts]

Starts a simulated camera, its daemon, the server and Prometheus (one scrape a second), stalls the camera, kills the
daemon, gives a camera a wrong password, fills the mount (with --own-mounts, in a mount namespace of its own), and asks
Prometheus what it thinks. Also runs every query of the dashboard. Standard library only; exits 1 with the first thing
that is not as promised.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "config" / "monitoring"
PATIENCE_S = 60
# The age that the rule allows, and the scrape and the evaluation that have to come after it, with their own seconds.
STALE_S = 5
SCRAPE_S = 1


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what: str, is_done, patience_s: float = PATIENCE_S):
    """Polls; returns what `is_done` returned and the seconds that it took."""
    began = time.monotonic()
    while not (found := is_done()):
        if time.monotonic() - began > patience_s:
            sys.exit(f"not within {patience_s} s: {what}")
        time.sleep(0.05)
    return found, time.monotonic() - began


class Prometheus:
    """The HTTP API of the one under test."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **query: str):
        address = self.base + path + "?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None  # it is still starting
            sys.exit(f"{path} {query}: {error.read().decode()}")
        except OSError:
            return None

    def alerts(self, state: str = "firing") -> set[tuple[str, str]]:
        """Firing alerts, or those that wait for their `for`, and their cameras."""
        found = (self.get("alerts") or {}).get("alerts", [])
        return {(a["labels"]["alertname"], a["labels"].get("camera", "")) for a in found if a["state"] == state}

    def value(self, query: str):
        result = (self.get("query", query=query) or {}).get("result", [])
        return float(result[0]["value"][1]) if result else None


def main(camring: str, own_mounts: bool) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shm = Path(tempfile.mkdtemp(prefix="camring-monitoring-", dir="/dev/shm"))
        stack.callback(shutil.rmtree, shm, ignore_errors=True)
        if own_mounts:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(shm)], check=True)
            stack.callback(subprocess.run, ["umount", "-l", str(shm)], check=True)

        def start(name: str, *command: str, **options) -> subprocess.Popen:
            log = stack.enter_context(open(folder / f"{name}.log", "w"))
            options.setdefault("stdout", log)
            process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def camera(name: str, *options: str) -> tuple[subprocess.Popen, str]:
            command = (camring, "sim", "--listen", "127.0.0.1:0", *options)
            sim = start(name, *command, stdout=subprocess.PIPE, text=True)
            return sim, sim.stdout.readline().strip()

        def capture(name: str) -> subprocess.Popen:
            return start(f"{name}-daemon", camring, "run", name, "--config", str(config), "--shm-dir", str(shm))

        sim, url = camera("sim", "--size", "640x360")
        _, large = camera("large", "--size", "1280x720", "--fps", "5")
        secret = folder / "secret"
        secret.write_text("the-right-one\n")
        secret.chmod(0o600)
        _, locked = camera("locked", "--auth", "digest", "--user", "viewer", "--password-file", str(secret))
        config = folder / "camring.toml"
        config.touch(0o600)
        config.write_text(
            f'[camera.cam]\nurl = "{url}"\n[camera.never]\nurl = "{url}"\n[camera.large]\nurl = "{large}"\n'
            f'[camera.locked]\nurl = "{locked}"\nuser = "viewer"\npassword = "not-that-one"\n'
        )
        daemon = capture("cam")
        port, own = free_port(), free_port()
        start("serve", camring, "serve", "--listen", f"127.0.0.1:{port}", "--config", str(config), "--shm-dir", str(shm))

        shutil.copy(MONITORING / "camring.rules.yml", folder)
        (folder / "prometheus.yml").write_text(
            f"global: {{ scrape_interval: {SCRAPE_S}s, evaluation_interval: {SCRAPE_S}s }}\n"
            "rule_files: [camring.rules.yml]\n"
            "scrape_configs:\n"
            f'  - {{ job_name: camring, static_configs: [{{ targets: ["127.0.0.1:{port}"] }}] }}\n'
        )
        start(
            "prometheus", "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn",
        )
        prometheus = Prometheus(own)
        judge(prometheus, sim, daemon)
        capture("locked")
        needs = ("CamringNeedsOperator", "locked")
        _, after = until("the wrong password fires", lambda: needs in prometheus.alerts())
        print(f"a wrong password fired {after:.1f} s after its daemon began")
        if own_mounts:
            fill(prometheus, shm, lambda: capture("large"))
        print("ok")


def fill(prometheus: Prometheus, shm: Path, capture) -> None:
    """Leaves no room on the mount for a camera that then begins."""
    (shm / "other").write_bytes(bytes(53 << 20))
    full, needs = ("CamringMountFull", ""), ("CamringNeedsOperator", "large")
    _, after = until("the full mount is pending", lambda: full in prometheus.alerts("pending"))
    print(f"a full mount was pending after {after:.1f} s; the rule waits a minute")
    capture()
    _, after = until("the camera without room fires", lambda: needs in prometheus.alerts())
    print(f"a camera without room fired {after:.1f} s after its daemon began")


def judge(prometheus: Prometheus, sim: subprocess.Popen, daemon: subprocess.Popen) -> None:
    until("Prometheus scrapes", lambda: prometheus.value('up{job="camring"}') == 1)
    until("the camera is live", lambda: prometheus.value('camring_state{camera="cam",state="live"}') == 1)
    stale, dead, never = ("CamringStale", "cam"), ("CamringDaemonDead", "cam"), ("CamringStale", "never")
    until("a camera that never had a frame is told", lambda: never in prometheus.alerts())
    until("the camera is calm", lambda: stale not in prometheus.alerts())

    for expression in re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', (MONITORING / "dashboard.json").read_text()):
        prometheus.get("query", query=json.loads(f'"{expression}"').replace("$camera", ".*"))
    shown = prometheus.get("query", query='camring_state{camera=~".*"} == 1')
    print("states:", {r["metric"]["camera"]: r["metric"]["state"] for r in shown["result"]})

    os.kill(sim.pid, signal.SIGSTOP)
    _, after = until("the stall fires", lambda: stale in prometheus.alerts())
    print(f"a stall fired {after:.1f} s after it began: {STALE_S} s of age and one scrape of {SCRAPE_S} s")
    if after < STALE_S - 1 or after > STALE_S + 2 * SCRAPE_S + 3:
        sys.exit(f"the alert took {after:.1f} s, expected {STALE_S} to {STALE_S + 2 * SCRAPE_S + 3}")
    os.kill(sim.pid, signal.SIGCONT)
    _, after = until("the stall clears", lambda: stale not in prometheus.alerts())
    print(f"it cleared {after:.1f} s after the camera came back")

    daemon.kill()
    _, after = until("the death is pending", lambda: dead in prometheus.alerts("pending"))
    print(f"a killed daemon was pending after {after:.1f} s")
    if after > 5:
        sys.exit(f"it took {after:.1f} s, expected a scrape and an evaluation of {SCRAPE_S} s each")
    _, more = until("the death fires", lambda: dead in prometheus.alerts())
    after += more
    print(f"a killed daemon fired after {after:.1f} s, of which the rule waits 5")
    if after > 15:
        sys.exit(f"the alert took {after:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1], "--own-mounts" in sys.argv[2:])
