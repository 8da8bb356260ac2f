"""A headless Chromium that a test drives over its DevTools protocol: a page, a mouse, a keyboard, pictures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.sync.client import connect

FLAGS = [
    "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--no-first-run", "--disable-extensions", "--remote-debugging-port=0",
]  # fmt: skip


def find_chromium() -> str | None:
    """BAGS_CHROMIUM, or the one on the PATH."""
    return os.environ.get("BAGS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One page of `width` x `height` pixels."""

    def __init__(self, chromium: str, folder: Path, width: int = 1000, height: int = 640) -> None:
        command = [chromium, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file, deadline = folder / "DevToolsActivePort", time.monotonic() + 60
        while not port_file.is_file() or not port_file.read_text().strip():
            assert time.monotonic() < deadline and self._process.poll() is None, "chromium did not start"
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30))
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        self._socket, self._sent = connect(address, max_size=None), 0
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.width, self.height = width, height

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != self._sent:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        self._send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        return self._send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """The expression's value, as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"the page never came to: {expression}"
            time.sleep(0.1)
        return value

    def picture(self, path: Path | None = None) -> np.ndarray:
        """The page's pixels [H W 3], and a PNG of them."""
        data = base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def click_button(self, text: str) -> None:
        """Clicks the button that shows `text`."""
        button = f"[...document.querySelectorAll('button')].find(b => b.textContent.trim() === {json.dumps(text)})"
        self.wait_for(f"!!{button}")
        self.evaluate(f"{button}.click()")

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        self.drag([(x, y), (x, y)])

    def drag(self, points: list[tuple[float, float]], pause: float = 0.15) -> None:
        """Presses the left button at the first point and lets it go at the last."""
        self._mouse("mouseMoved", *points[0])
        time.sleep(2 * pause)  # what lies under the mouse is looked for in the next frame
        self._mouse("mousePressed", *points[0], button="left", clickCount=1, buttons=1)
        for point in points[1:]:
            time.sleep(pause)
            self._mouse("mouseMoved", *point, button="left", buttons=1)
        time.sleep(pause)
        self._mouse("mouseReleased", *points[-1], button="left", clickCount=1)
