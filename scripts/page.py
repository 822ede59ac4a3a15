"""The page of `camring serve` as a person meets it: in a browser, with cameras in every mood.

    page.py CAMRING FOLDER

Starts three simulated cameras (one is frozen, the daemon of one is killed), names a fourth that has no ring, and looks
at the page through WebDriver: what it says, what it shows, keyboard, width of a phone, light and dark, a server that
goes away. Screenshots go to FOLDER. Standard library only; exits 1 with the first thing that is not as promised.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE_S = 60
ENTER, ESCAPE = "\ue007", "\ue00c"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what: str, is_done, patience_s: float = PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not (found := is_done()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {patience_s} s: {what}")
        time.sleep(0.1)
    return found


class Browser:
    """One tab, through WebDriver."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        until("the driver answers", lambda: self.call("GET", "/status", patient=True))
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{session['sessionId']}"

    def call(self, method: str, path: str, body: dict | None = None, patient: bool = False):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.read().decode()[:2000]}")
        except OSError:
            if patient:
                return None
            raise

    def run(self, script: str, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters) -> None:
        self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def keys(self, keys: str) -> None:
        presses = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": presses}]})

    def resize(self, width: int, height: int) -> None:
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, value: str) -> None:
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the browser's console has, but for the answers that are meant to be errors."""
        lines = self.call("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if "status of 503" not in line["message"]]


WORDS = """
return Object.fromEntries([...document.querySelectorAll(".card")].map((card) => [card.querySelector("h2").textContent, {
  grade: card.dataset.grade,
  words: card.querySelector(".state-words").textContent,
  note: card.querySelector(".note").textContent,
  fps: card.querySelector('[data-value="fps"]').textContent,
  pixels: card.querySelector("img").hidden ? 0 : card.querySelector("img").naturalWidth,
  old: card.querySelector(".old").hidden ? "" : card.querySelector(".old").textContent,
}]))
"""


def main(camring: str, out: Path) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shm = Path(tempfile.mkdtemp(prefix="camring-page-", dir="/dev/shm"))
        stack.callback(shutil.rmtree, shm, ignore_errors=True)

        def start(*command: str, **options) -> subprocess.Popen:
            options.setdefault("stdout", subprocess.DEVNULL)
            log = stack.enter_context(open(folder / f"{len(list(folder.iterdir()))}.log", "w"))
            process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def camera(size: str) -> tuple[subprocess.Popen, str]:
            options = ["--listen", f"127.0.0.1:{free_port()}", "--size", size, "--fps", "15"]
            sim = start(camring, "sim", *options, stdout=subprocess.PIPE, text=True)
            return sim, sim.stdout.readline().strip()

        cameras = {"front": camera("1280x720"), "back-door": camera("640x360"), "yard": camera("640x480")}
        config = folder / "camring.toml"
        tables = [f'[camera.{name}]\nurl = "{url}"\n' for name, (_, url) in cameras.items()]
        config.write_text("".join(tables) + '[camera.garage]\nurl = "rtsp://127.0.0.1:1/x"\n')
        common = ("--config", str(config), "--shm-dir", str(shm))
        daemons = {name: start(camring, "run", name, *common) for name in cameras}
        port, driver = free_port(), free_port()
        server = start(camring, "serve", "--listen", f"127.0.0.1:{port}", *common)
        token, guarded = folder / "token", free_port()
        token.write_text("a+token/of-the-page=\n")
        token.chmod(0o600)
        start(camring, "serve", "--listen", f"0.0.0.0:{guarded}", "--token-file", str(token), *common)
        start("chromedriver", f"--port={driver}")
        browser = Browser(driver)
        stack.callback(browser.call, "DELETE", "")
        judge_token(browser, f"http://127.0.0.1:{guarded}/")
        judge(browser, f"http://127.0.0.1:{port}/", cameras, daemons, server, out)


def judge_token(browser: Browser, address: str) -> None:
    """The page hands its token on to everything it asks for; without one there is no page."""
    browser.call("POST", "/url", {"url": address})
    text = browser.run("return document.body.textContent")
    assert "expected the token" in text, text
    browser.call("POST", "/url", {"url": address + "?token=a%2Btoken%2Fof-the-page%3D"})
    until("a picture comes with the token", lambda: any(card["pixels"] for card in browser.run(WORDS).values()))
    assert "token" not in browser.run("return document.documentElement.outerHTML.replace(/href=.[^>]*/g, '').replace(/<script.*script>/s, '')")
    browser.complaints()


def judge(browser: Browser, address: str, cameras: dict, daemons: dict, server: subprocess.Popen, out: Path) -> None:
    browser.scheme("light")
    browser.resize(1280, 900)
    browser.call("POST", "/url", {"url": address})
    cards = lambda: browser.run(WORDS)  # noqa: E731
    until("all three are live with a picture", lambda: sum(c["pixels"] > 0 and c["words"] == "live" for c in cards().values()) == 3)
    picture = browser.run('return document.querySelector("#camera-front img").src')
    until("the picture changes", lambda: browser.run('return document.querySelector("#camera-front img").src') != picture)
    assert cards()["garage"]["words"] == "absent", cards()

    os.kill(cameras["back-door"][0].pid, signal.SIGSTOP)
    daemons["yard"].kill()
    until("the frozen one is told", lambda: "stale" in cards()["back-door"]["words"])
    until("the killed one is told", lambda: "dead writer" in cards()["yard"]["words"])
    for name in ("back-door", "yard"):
        assert cards()[name]["old"].endswith(" old"), f"{name} does not say that its picture is old: {cards()[name]}"
    assert not cards()["front"]["old"], cards()["front"]
    assert "start camring@yard" in cards()["yard"]["note"], cards()["yard"]
    trouble = browser.run('return [...document.querySelectorAll("#trouble a")].map((a) => a.textContent)')
    assert len(trouble) == 3 and browser.run("return document.title") == "(3) camring", trouble
    browser.picture(out / "light.png")
    browser.scheme("dark")
    browser.picture(out / "dark.png")

    # The keyboard alone: focus, Enter opens, the stream plays, Escape closes and the focus is back.
    browser.run('document.querySelector("#camera-front button").focus()')
    browser.keys(ENTER)
    until("the large picture is live", lambda: browser.run('return document.querySelector("#large img").naturalWidth') == 1280)
    assert browser.run('return document.querySelector("#large").open')
    browser.picture(out / "large.png")
    browser.keys(ESCAPE)
    until("it closes", lambda: not browser.run('return document.querySelector("#large").open'))
    assert browser.run("return document.activeElement.closest('.card').id") == "camera-front"
    metrics = lambda: urllib.request.urlopen(address + "metrics", timeout=10).read().decode()  # noqa: E731
    until("its stream has ended", lambda: 'camring_serve_clients{kind="stream"} 0' in metrics())

    browser.run('document.querySelector("#only").click()')
    shown = browser.run('return [...document.querySelectorAll(".card")].filter((c) => c.offsetParent).map((c) => c.id)')
    assert sorted(shown) == ["camera-back-door", "camera-garage", "camera-yard"], shown
    browser.run('document.querySelector("#only").click()')

    for scheme in ("dark", "light"):
        browser.scheme(scheme)
        browser.resize(360, 800)
        overflow = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0, f"the page is {overflow} pixels wider than a phone"
        browser.picture(out / f"narrow-{scheme}.png")
    browser.resize(1280, 900)

    os.kill(cameras["back-door"][0].pid, signal.SIGCONT)
    until("the frozen one is live again", lambda: cards()["back-door"]["words"] == "live" and not cards()["back-door"]["old"])
    complaints = browser.complaints()
    assert not complaints, complaints

    server.kill()
    lost = 'return document.querySelector("#link").textContent'
    until("a lost server is told", lambda: "connection lost" in browser.run(lost))
    browser.picture(out / "lost.png")
    print("ok; look at the pictures in", out)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
