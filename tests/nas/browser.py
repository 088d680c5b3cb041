"""A page in headless Chromium, driven over the DevTools protocol through a pipe; nothing but the browser is needed."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

WHERE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

HOW = "needs headless Chromium: apt-get install chromium"


class Browser:
    """One browser; `open` gives a `Tab`. Use it as a context, so that it ends."""

    def __init__(self, profile):
        here, theirs = os.pipe()
        answers, ours = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                   "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip

        # the protocol is on file descriptors 3 and 4, which a shell puts there
        wiring = f'exec 3<&{here} 4>&{ours}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", wiring, "bash", WHERE, *options], pass_fds=(here, ours), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(here)
        os.close(ours)
        self._to, self._from = os.fdopen(theirs, "wb", buffering=0), os.fdopen(answers, "rb", buffering=0)
        self._next, self.events = 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._to.close()
        self._from.close()

    def call(self, method, session=None, **params):
        """One command; events that come before its answer are kept."""
        self._next += 1
        asked = self._next
        message = {"id": asked, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        guard = threading.Timer(60, self.process.kill)
        guard.start()
        try:
            while (answer := self._read()).get("id") != asked:
                self.events.append(answer)
        finally:
            guard.cancel()
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        data = bytearray()
        while (one := self._from.read(1)) != b"\0":
            assert one, "the browser has ended"
            data += one
        return json.loads(data)

    def open(self, path, *, width=1200, height=1000, dark=False):
        """A tab that shows a file and has drawn its charts."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        tab.call("Emulation.setEmulatedMedia", features=scheme)
        tab.call("Page.bringToFront")
        tab.call("Page.navigate", url=Path(path).resolve().as_uri())
        tab.wait("document.readyState === 'complete'")
        tab.wait("[...document.querySelectorAll('figure.chart')].every((one) => one.dataset.drawn)")
        return tab


class Tab:
    """One page in the browser."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, **params):
        """A command to this page."""
        return self.browser.call(method, session=self.session, **params)

    def run(self, script):
        """The value of an expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition, tries=300):
        """Until an expression holds."""
        for _ in range(tries):
            if self.run(condition):
                return
            time.sleep(0.1)
        raise AssertionError(f"{condition} never came true: {self.complaints()}")

    def move(self, x, y, kind="mouseMoved", **rest):
        """The pointer, in pixels of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **rest)

    def hover(self, x, y, condition, tries=100):
        """The pointer trembles about a point until an expression holds."""
        for i in range(tries):
            self.move(x + i % 3, y)
            if self.run(condition):
                return
            time.sleep(0.1)
        raise AssertionError(f"{condition} never came true")

    def click(self, x, y):
        """The left button, down and up."""
        for kind in ("mousePressed", "mouseReleased"):
            self.move(x, y, kind, button="left", clickCount=1)

    def drag(self, start, end):
        """From one point to another with the left button."""
        self.move(*start)
        self.move(*start, "mousePressed", button="left", buttons=1, clickCount=1)
        for step in range(1, 6):
            at = [a + (b - a) * step / 5 for a, b in zip(start, end, strict=True)]
            self.move(*at, button="left", buttons=1)
        self.move(*end, "mouseReleased", button="left", clickCount=1)

    def box(self, selector, index=0):
        """Left, top, width, height of an element, scrolled into view."""
        return self.run(
            f"(() => {{const e = document.querySelectorAll({json.dumps(selector)})[{index}]; "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.left, b.top, b.width, b.height]})()"
        )

    def complaints(self):
        """What the console holds of errors and warnings, and what the page's policy refused."""
        said = [one for one in self.browser.events if one.get("sessionId") == self.session]
        return [
            json.dumps(one["params"])[:600]
            for one in said
            if one["method"] == "Runtime.exceptionThrown"
            or (one["method"] == "Log.entryAdded" and one["params"]["entry"]["level"] in ("error", "warning"))
            or (one["method"] == "Runtime.consoleAPICalled" and one["params"]["type"] in ("error", "warning"))
        ]

    def requests(self):
        """Addresses that the page asked for, itself left out."""
        said = [one for one in self.browser.events if one.get("sessionId") == self.session]
        asked = [one["params"]["request"]["url"] for one in said if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if url != self.run("location.href")]

    def picture(self, path):
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))
