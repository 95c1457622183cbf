"""How fast the page judges a camera and a film, beside its model alone, and whether a stream that was lost is back.

python -m tools.stream_speed --models=saved_models --images=FOLDER --project=NEW_FOLDER

Needs the extras app, camera and test. The images are written into a film, and are sent as an MJPEG stream at 0.6 of the
pace of the model alone, which breaks off in the middle and is back after some seconds.
"""

import argparse
import http.server
import pathlib
import sys
import threading
import time

import cv2

from mvtec_tf.app import camera, sources
from mvtec_tf.app.application import create
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.app.sources import Asked
from mvtec_tf.serving.client import LocalModel

_AWAY_SECONDS = 3.0
_HEAD = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


class Camera:
    """An MJPEG stream of each picture once, at a pace; it breaks off after half of them.

    Args:
      pictures: JPEG files.
      pace: of pictures a second.
    """

    def __init__(self, pictures: list[bytes], pace: float) -> None:
        halves = iter((pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]))
        self.away_at = 0.0
        stream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Sends the next half."""
                half = [] if time.monotonic() - stream.away_at < _AWAY_SECONDS else next(halves, [])
                self.send_response(200 if half else 503)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for content in half:
                    self.wfile.write(_HEAD % len(content) + content + b"\r\n")
                    time.sleep(1 / pace)
                if half:
                    stream.away_at = time.monotonic()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/"


def main() -> None:
    """Prints what was found; exits with 1 where the page is slower than half of its model, or a part is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("models", "images", "project"):
        parser.add_argument(f"--{name}", required=True)
    asked = parser.parse_args()
    files = sorted(pathlib.Path(asked.images).rglob("*.png"))
    project = pathlib.Path(asked.project).resolve()
    project.mkdir(parents=True)
    site = create(ServeSettings(models=asked.models, project=str(project / "page"), folders=(str(project),))).state.site
    (export,) = site.models.there()
    model, contents = LocalModel(export.path), [file.read_bytes() for file in files]
    model("explain", contents[:1])
    start = time.monotonic()
    for content in contents:
        model("explain", [content])
    own = len(files) / (time.monotonic() - start)
    print(f"{export.called}: {own:.2f} images/s with heat maps, one by one")
    pixels = [cv2.imread(str(file)) for file in files]
    film = project / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, pixels[0].shape[1::-1])
    for picture in pixels:
        writer.write(picture)
    writer.release()
    rates = [_judged(site, Asked(kind="film", place=str(film)), len(files))]
    stream = Camera([cv2.imencode(".jpg", picture)[1].tobytes() for picture in pixels], 0.6 * own)
    # What the stream waits for is not the page's time.
    rates.append(_judged(site, Asked(kind="camera", place=stream.address), len(files), _AWAY_SECONDS))
    print("; ".join(event["what"] for event in reversed(site.kept.events(9))))
    site.close()
    sys.exit(min(rates) < own / 2)


def _judged(site: object, asked: Asked, count: int, waits: float = 0.0) -> float:
    """Prints and returns how many parts a second are judged of a source; 0 where one is missing."""
    watching, start = site.watching, time.monotonic()
    watching.begin(sources.checked(asked, site.settings.folders))
    end = start + 60 + 10 * count
    while watching.judged + watching.missed < count and time.monotonic() < end:
        time.sleep(0.05)
    rate = watching.judged / (time.monotonic() - start - waits)
    print(f"{asked.kind}: {rate:.2f} parts/s; {watching.judged} of {count} judged, {watching.missed} came too fast")
    watching.stop("script")
    return rate if watching.judged == count else 0.0


if __name__ == "__main__":
    assert camera.is_there()
    main()
