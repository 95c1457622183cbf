"""The page under hostile use: many uploads at once, memory, clients that go away, kills in the middle of judging.

python -m tools.page_under_load --models=saved_models --image=FILE.png --project=NEW_FOLDER

Needs the extras app and test. Every photograph is the image with other noise, so that none was judged before.
"""

import argparse
import contextlib
import io
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
from PIL import Image

from mvtec_tf.app import store
from mvtec_tf.app.guard import PROGRAM_HEADER

UPLOADS, MORE, GONE, KILLS, AT_A_TIME = 200, 500, 50, 10, 60
_CUT = (
    "POST /api/judge HTTP/1.1\r\nHost: 127.0.0.1\r\nX-MVTEC-TF: 1\r\nContent-Length: 1000000\r\n"
    "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    '--b\r\nContent-Disposition: form-data; name="photographs"; filename="a.png"\r\n\r\n'
)


class Page:
    """A page in a process of its own, which can be killed and started again.

    Args:
      models, project: as of the command.
      image: of the photographs.
    """

    def __init__(self, models: str, project: str, image: str) -> None:
        self.project, self._models = pathlib.Path(project), models
        self._pixels = np.asarray(Image.open(image).convert("RGB")).astype(int)
        self.start()

    def start(self) -> None:
        """Starts it; returns when it answers."""
        flags = [f"--models={self._models}", f"--project={self.project}", "--port=0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mvtec_tf.bin.serve", *flags], stdout=subprocess.PIPE, text=True
        )
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0].rstrip("/")

    def send(self, seed: int) -> httpx.Response:
        """Has a photograph judged."""
        noise, buffer = np.random.default_rng(seed).integers(-3, 4, self._pixels.shape), io.BytesIO()
        Image.fromarray(np.clip(self._pixels + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
        files = {"photographs": (f"{seed}.png", buffer.getvalue())}
        return httpx.post(f"{self.address}/api/judge", files=files, headers={PROGRAM_HEADER: "1"}, timeout=300)

    def memory(self) -> float:
        """Resident memory in MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def log(self) -> list[str]:
        """SHA-256 of every judgement."""
        found, before = [], 0
        while page := httpx.get(f"{self.address}/api/judgements", params={"most": 1000, "before": before}).json():
            found, before = found + [row["sha256"] for row in page], page[-1]["id"]
        return found


def _kills(page: Page) -> set[str]:
    """SHA-256 of the photographs that were answered by a page that was killed again and again."""
    answered: set[str] = set()

    def work(seed: int) -> None:
        # The page was killed.
        with contextlib.suppress(httpx.HTTPError):
            answered.add(page.send(seed).json()["judgements"][0]["sha256"])

    for kill in range(KILLS):
        threading.Timer(1.0 + 0.1 * kill, page.process.kill).start()
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(work, range(10_000 + AT_A_TIME * kill, 10_000 + AT_A_TIME * (kill + 1))))
        page.process.wait()
        page.start()
    return answered


def main() -> None:
    """Prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("models", "project", "image"):
        parser.add_argument(f"--{name}", required=True)
    page = Page(**vars(parser.parse_args()))
    page.send(0)
    start = time.monotonic()
    with ThreadPoolExecutor(UPLOADS) as workers:
        statuses = Counter(workers.map(lambda seed: page.send(seed).status_code, range(1, UPLOADS + 1)))
    print(f"{UPLOADS} uploads at once: {dict(statuses)}, {time.monotonic() - start:.1f} s")
    first = page.memory()
    for seed in range(UPLOADS + 1, UPLOADS + MORE + 1):
        page.send(seed).raise_for_status()
    print(f"memory: {first:.0f} MB, after {MORE} more {page.memory():.0f} MB")
    host, port = page.address.removeprefix("http://").split(":")
    for _ in range(GONE):
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(_CUT.encode() + bytes(5000))
    print(f"after {GONE} clients that went away: {httpx.get(f'{page.address}/healthz').text.strip()}")
    answered, log = _kills(page), page.log()
    images = {path.stem for path in (page.project / store.IMAGES).iterdir()}
    print(
        f"{KILLS} kills: {len(answered)} photographs answered, {len(answered - set(log))} of them not in the log, "
        f"{len(log) - len(set(log))} twice; {len(images - set(log))} files without a judgement, "
        f"{len(list((page.project / store.INCOMING).iterdir()))} half-written"
    )
    page.process.send_signal(signal.SIGTERM)
    print(f"exit status {page.process.wait()}")


if __name__ == "__main__":
    main()
