"""An exported page in a real browser: npm's packages beside it, a local server, a script that drives it."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bags_ns.animation.export_web import SPARK, THREE

PACKAGES = [f"three@{THREE}", f"@sparkjsdev/spark@{SPARK}", "puppeteer-core@24"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def find_chromium() -> str:
    """Its path; LookupError says what is missing."""
    found = os.environ.get("BAGS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise LookupError("no chromium on the PATH (or in BAGS_CHROMIUM): the page is opened in a real browser")
    if not shutil.which("npm"):
        raise LookupError("no npm on the PATH: it installs what the page draws with")
    return found


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Puts npm's packages into a folder, and serves it: the address of its page. LookupError where npm cannot."""
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *PACKAGES]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if installed.returncode:
        raise LookupError(f"npm could not install {PACKAGES}: {installed.stderr.strip()[-200:]}")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()


def drive(chromium: str, folder: Path, url: str, times: Sequence[float]) -> dict[str, Any]:
    """Plays and poses the page, leaves pictures in the folder, loads proxy.glb in three.js; says what was seen.

    `vertices` [times P 3] are every 20th of the skinned mesh at `times` in seconds, z up.
    """
    shutil.copy(Path(__file__).with_name("drive_page.mjs"), folder)
    driven = subprocess.run(
        ["node", "drive_page.mjs", chromium, url, ".", json.dumps(list(times))],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if driven.returncode:
        raise RuntimeError(f"the page could not be driven: {driven.stderr[-2000:]}")
    return json.loads(driven.stdout.strip().splitlines()[-1])
