"""Parts that come by a folder, a camera, a film: each is judged and logged once, and what is lost is back."""

import contextlib
import dataclasses
import http.server
import io
import shutil
import socket
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.app import camera, places, sources
from mvtec_tf.app.places import NoPlaceError
from mvtec_tf.app.sources import Asked
from tests.app.conftest import Page, until
from tests.support.rtsp_camera import RtspCamera

PARTS = 6
BOUNDARY = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(sources, "_PAUSE", 0.02)


@pytest.fixture
def parts(toy):
    return sorted((toy / "flange" / "test").rglob("*.png"))[:PARTS]


@pytest.fixture
def watched(settings, tmp_path):
    """(settings of a page that may watch a folder, the folder)."""
    (tmp_path / "line").mkdir()
    return dataclasses.replace(settings, folders=(str(tmp_path / "line"),)), tmp_path / "line"


@contextlib.contextmanager
def opened(settings):
    with Page(settings) as browser:
        browser.get("/")
        try:
            yield browser
        finally:
            browser.site.close()


def begin(browser, kind, place, take=camera.EACH):
    told = {"kind": kind, "place": str(place), "take": take, "who": "Eva"}
    begun = browser.form("/source", told)
    assert begun.status_code == 303, begun.text


def logged(browser):
    return browser.site.kept.ask("SELECT * FROM parts ORDER BY id")


def test_each_file_of_a_folder_is_judged_and_logged_once_also_by_the_next_page(watched, parts):
    settings, folder = watched
    with opened(settings) as browser:
        begin(browser, "folder", folder)
        for file in parts[:3]:
            shutil.copy(file, folder / f"{file.parent.name} {file.name}")
        (folder / "broken.png").write_bytes(parts[0].read_bytes()[:200])
        # A link leads to no file that the page may not read.
        (folder / "linked.png").symlink_to(parts[5])
        until(lambda: len(logged(browser)) == 5)
        refused = {row["name"]: row["error"] for row in logged(browser) if row["error"]}
        assert sorted(refused) == ["broken.png", "linked.png"]
        assert "below none of the folders" in refused["linked.png"]
        told = browser.get("/api/source").json()
        assert (told["state"], told["judged"], told["refused"]) == ("runs", 3, 2)
        newest = browser.get("/source").text
        assert f'data-sha256="{told["newest"]}"' in newest
        assert "the page was started: 3; not judged: 2." in newest
        shutil.move(folder, folder.with_name("away"))
        until(lambda: browser.site.watching.state == "lost")
        assert "the folder is not there" in browser.get("/").text
        shutil.move(folder.with_name("away"), folder)
        until(lambda: browser.site.watching.state == "runs")
    # The page was ended, not the watching; what comes meanwhile waits.
    shutil.copy(parts[4], folder / "meanwhile.png")
    with opened(settings) as browser:
        until(lambda: len(logged(browser)) == 6)
        assert len(browser.site.kept.latest(99)) == 4
        assert browser.form("/source/stop", {"who": "Udo"}).status_code == 303
        whats = [event["what"] for event in browser.site.kept.events(9)]
        assert whats == ["event_stopped", "event_back", "event_lost", "event_begun"]
        begin(browser, "folder", folder)
    with opened(dataclasses.replace(settings, folders=())) as browser:
        told = browser.get("/api/source").json()
        assert (told["state"], "--folders" in told["reason"]) == ("failed", True)
        browser.form("/source/stop")
    with opened(settings) as browser:
        assert browser.get("/api/source").json()["state"] == "stopped"


def test_what_a_person_may_not_have_watched_is_refused(watched, tmp_path):
    settings, folder = watched
    (tmp_path / "secret").mkdir()
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "film.avi").write_bytes(b"none")
    allowed = [str(folder)]
    for kind, place, told in (
        ("folder", tmp_path / "secret", "place_not_allowed"),
        ("folder", folder / "out", "place_not_allowed"),
        ("folder", f"{folder}/../secret", "place_not_allowed"),
        ("folder", "", "place_not_allowed"),
        ("folder", folder / "nothing", "no_such_place"),
        ("folder", folder / "film.avi", "no_such_place"),
        ("other", folder, "incomplete"),
    ):
        with pytest.raises(NoPlaceError, match=told):
            sources.checked(Asked(kind=kind, place=str(place)), allowed)
    with pytest.raises(NoPlaceError, match="no_places"):
        sources.checked(Asked(kind="folder", place=str(folder)), [])
    paths = ["file:///etc/passwd", "/etc/passwd", str(folder), "concat:a|b", "data:image/png,"]
    # A password with a / ? or # of its own is cut in two, and its first half read as a port.
    cut = [f"rtsp://eva:1{mark}word@camera/line" for mark in "/?#"]
    for wrong in [*paths, *cut, "http://", "http://a b/", "http://h:x/", "ftp://h/x", "h:1"]:
        assert not places.is_address(wrong, camera.SCHEMES), wrong
    assert places.is_address("rtsp://eva:s3cret@camera:554/line?key=1", camera.SCHEMES)
    assert places.pause(0.5, 9000, 30.0) == 30.0
    assert places.shown("rtsp://eva:s3cret@camera:554/line?key=1") == "rtsp://camera:554/line"
    assert places.shown("rtsp://camera:554/user=eva_password=s3cret_channel=1") == "rtsp://camera:554/..."
    # Whatever was chosen above it, an address is one; what is wrong with it is told without it.
    taken = sources.checked(Asked(kind="folder", place="rtsp://eva:s3cret@camera/line"), allowed)
    assert (taken.kind, taken.shown) == ("camera", "rtsp://camera/line")
    with opened(settings) as browser:
        told = {"kind": "folder", "place": str(folder), "take": "each", "who": "Eva"}
        program = {"x-mvtec-tf": "1"}
        assert browser.post("/source", data=told, headers=program).status_code == 403
        assert browser.post("/source/stop", headers=program).status_code == 403
        assert browser.form("/source", told | {"who": " "}).status_code == 422
        refused = browser.form("/source", told | {"place": "<b>/etc"})
        assert (refused.status_code, "below none of the folders" in refused.text, "<b>/etc" in refused.text) == (
            *(422, True, False),
        )
        refused = browser.form("/source", told | {"place": "rtsp://eva:s3cret@camera:x/line"})
        assert (refused.status_code, "A camera has an address" in refused.text, "s3cret" in refused.text) == (
            *(422, True, False),
        )
        assert browser.get("/api/source").json()["place"] == ""


class Stream:
    """A camera: an MJPEG stream of pictures, that can be ended and begun again."""

    def __init__(self, pictures, port=0):
        self.pictures, self.runs = pictures, True
        stream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    for content in stream.pictures:
                        self.wfile.write(BOUNDARY % len(content) + content + b"\r\n")
                    # A camera of which nothing moves.
                    while stream.runs:
                        time.sleep(0.01)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]

    def close(self):
        self.runs = False
        self.server.shutdown()
        self.server.server_close()


def jpeg(file):
    buffer = io.BytesIO()
    Image.open(file).convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(("scheme", "Camera"), [("http", Stream), ("rtsp", RtspCamera)])
def test_a_camera_is_judged_part_by_part_and_is_back_when_it_was_lost(scheme, Camera, settings, parts, capfd):
    pytest.importorskip("cv2")
    pictures = [jpeg(file) for file in parts]
    stream = Camera(pictures[:4])
    where = f"127.0.0.1:{stream.port}/line"
    with opened(settings) as browser:
        if scheme == "rtsp":
            begin(browser, "camera", f"rtsp://eva:wrong@{where}")
            until(lambda: browser.site.watching.state == "lost")
        begin(browser, "camera", f"{scheme}://eva:s3cret@{where}?key=1")
        # A picture by RTSP is known to be whole when the next one begins, or the camera breaks off.
        until(lambda: len(logged(browser)) >= 3)
        stream.close()
        until(lambda: len(logged(browser)) == 4 and browser.site.watching.state == "lost")
        assert "no picture came" in browser.get("/").text
        again = Camera(pictures[4:], port=stream.port)
        until(lambda: len(logged(browser)) >= 5 and browser.site.watching.state == "runs")
        again.close()
        until(lambda: len(logged(browser)) == 6)
        assert len({row["sha256"] for row in logged(browser)}) == len(browser.site.kept.latest(99)) == 6
        # What is secret in the address is nowhere to be seen.
        for address in ("/", "/source", "/api/source", "/judgements.csv", "/api/judgements"):
            assert "s3cret" not in browser.get(address).text, address
        assert {row["source"] for row in logged(browser)} == {f"{scheme}://{where}"}
        browser.form("/source/stop")
    assert "s3cret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_that_takes_a_call_and_says_nothing_is_given_up(scheme, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr(camera, "_PATIENCE_MS", {camera.EACH: 200})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://eva:s3cret@127.0.0.1:{silent.getsockname()[1]}/line"
        stream = camera.Stream(address, camera.Chooser(camera.EACH))
        with pytest.raises(camera.LostError, match="no_pictures"):
            stream.next(60)
        stream.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_silent_camera_is_hung_up_on_when_it_is_watched_no_more(scheme):
    pytest.importorskip("cv2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stream = camera.Stream(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/line", camera.Chooser(camera.EACH))
        with silent.accept()[0] as connection:
            assert connection.recv(9999)
            stream.close()
            # It would have waited for half a minute.
            connection.settimeout(5)
            assert not connection.recv(9999)
    stream._reader.join(5)
    assert not stream._reader.is_alive()


def test_of_parts_that_come_too_fast_eight_wait_and_the_others_are_counted(parts, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    shown = [np.full((4, 4, 3), number, np.uint8) for number in range(20)]
    pictures = iter([(True, one) for one in shown])
    film = types.SimpleNamespace(read=lambda: next(pictures, (False, None)), release=lambda: None)
    monkeypatch.setattr(camera, "_opened", lambda *_: film)
    stream = camera.Stream("rtsp://camera/line", camera.Chooser(camera.EACH))
    stream._reader.join()
    assert (stream.seen, stream.missed, stream.waiting) == (20, 12, 8)
    kept = [cv2.imdecode(np.frombuffer(stream.next(1)[1], np.uint8), cv2.IMREAD_COLOR)[0, 0, 0] for _ in range(8)]
    assert kept == list(range(12, 20))
    with pytest.raises(camera.LostError, match="no_pictures"):
        stream.next(1)


def test_a_part_that_stands_still_is_taken_once_whatever_the_lamp_does(parts):
    pytest.importorskip("cv2")
    shown = [np.asarray(Image.open(file).convert("RGB")) for file in (parts[0], parts[-1])]
    dimmed = (shown[0] * 0.97).astype(np.uint8)
    choose = camera.Chooser(camera.STILL)
    film = [shown[0]] * 4 + [dimmed] * 5 + [shown[1]] * 2 + [shown[0]] * 4 + [shown[1]] * 9
    assert [number for number, picture in enumerate(film) if choose(picture)] == [2, 13, 17]
    # The page was started anew while a part stood there.
    choose = camera.Chooser(camera.STILL, shown[0])
    assert [choose(picture) for picture in [dimmed] * 5] == [False] * 5
    assert sum(map(camera.Chooser(camera.EACH), film)) == len(film)


def test_a_film_goes_on_where_the_page_was_ended(watched, parts):
    cv2 = pytest.importorskip("cv2")
    settings, folder = watched
    film = folder / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for file in parts:
        writer.write(cv2.imread(str(file)))
    writer.release()
    for most in (2, 4):
        with opened(settings) as browser:
            if most == 2:
                begin(browser, "film", film)
            until(lambda: len(logged(browser)) >= most)  # noqa: B023
    with opened(settings) as browser:
        until(lambda: browser.site.watching.state in ("ended", "stopped"))
        assert [row["name"] for row in logged(browser)] == [f"{number:06d}" for number in range(1, PARTS + 1)]
        assert len(browser.site.kept.latest(99)) == PARTS
        begin(browser, "film", film)
        until(lambda: browser.site.watching.state == "ended")
        assert len(logged(browser)) == PARTS


def test_without_opencv_the_page_says_how_to_get_it(page, monkeypatch):
    monkeypatch.setattr(camera, "is_there", lambda: False)
    told = {"kind": "camera", "place": "http://127.0.0.1:9/", "who": "Eva"}
    refused = page.form("/source", told)
    assert (refused.status_code, "mvtec_tf[camera]" in refused.text) == (422, True)
