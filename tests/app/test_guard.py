"""Who is let in: sessions, the password, names of the host, forged forms, hostile files and names."""

import io
import struct
import zlib

import pytest

from mvtec_tf.app import store
from mvtec_tf.app.guard import TRIES, WITHIN_SECONDS, Guard
from tests.app.conftest import Page

PASSWORD = "correct horse"


@pytest.fixture
def locked(settings):
    moment = [0.0]
    with Page(settings, guard=Guard(PASSWORD, clock=lambda: moment[0])) as browser:
        browser.moment = moment
        browser.get("/login")
        yield browser
        browser.site.kept.close()


def test_nothing_is_shown_without_the_password_and_a_wrong_one_is_heard_ten_times(locked, photographs):
    for address in ("/", "/judgements.csv", "/photographs/0.jpg", "/heat/1.png", "/static/../page.sqlite"):
        assert locked.get(address).status_code in (303, 404), address
    for address in ("/api/models", "/api/judgements", "/metrics"):
        assert locked.get(address).status_code == 401
    assert locked.show(photographs[0]).status_code == 401
    assert locked.get("/healthz").text == "ok\n"
    statuses = [locked.form("/login", {"password": f"guess {n}"}).status_code for n in range(100)]
    assert statuses == [403] * TRIES + [429] * (100 - TRIES)
    # Not even the right one, by whatever way, until the time is over.
    bearer = {"Authorization": f"Bearer {PASSWORD}"}
    assert locked.form("/login", {"password": PASSWORD}).status_code == 429
    assert locked.get("/api/models", headers=bearer).status_code == 401
    locked.moment[0] += WITHIN_SECONDS + 1
    assert locked.get("/api/models", headers=bearer).status_code == 200
    entered = locked.form("/login", {"password": PASSWORD})
    assert entered.status_code == 303
    assert {"HttpOnly", "SameSite=Strict"} <= set(entered.headers["set-cookie"].split("; "))
    assert locked.get("/").status_code == 200
    assert locked.form("/logout").status_code == 303
    assert locked.get("/").status_code == 303


def test_a_program_with_the_password_judges(locked, photographs):
    files = [("photographs", (photographs[0].name, photographs[0].read_bytes()))]
    done = locked.post("/api/judge", files=files, headers={"Authorization": f"Bearer {PASSWORD}"})
    assert [row["id"] for row in done.json()["judgements"]] == [1]
    # What says to be a program has to have the password where there is one.
    assert locked.post("/api/judge", files=files, headers={"x-mvtec-tf": "1"}).status_code == 401


def test_a_forged_form_and_another_host_are_refused(page, photographs):
    files = [("photographs", (photographs[0].name, photographs[0].read_bytes()))]
    token = page.site.guard.token("x" * 40)
    for data, headers in (
        ({}, {}),
        ({"csrf": token}, {}),
        ({"csrf": "é"}, {}),
        ({}, {"x-mvtec-tf": "1", "origin": "http://evil.example"}),
    ):
        assert page.post("/judge", data=data, files=files, headers=headers).status_code == 403
    assert page.form("/judge", files=files, headers={"origin": "http://evil.example:8600"}).status_code == 403
    assert page.form("/judge", files=files, headers={"origin": "http://127.0.0.1:8600"}).status_code == 200
    for host in ("evil.example", "evil.example:8600", "127.0.0.1.evil.example", "10.0.0.7", "", "["):
        assert page.get("/", headers={"host": host}).status_code == 421, host
    for host in ("localhost:8600", "127.0.0.1", "[::1]:8600"):
        assert page.get("/", headers={"host": host}).status_code == 200, host
    assert "default-src 'none'" in page.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..\\..\\x.png", "/x.png", "a\x00b.png", "'; DROP TABLE images; --.png", "n" * 5000]
)
def test_a_name_names_no_file_here(page, photographs, name):
    before = {path for path in page.site.kept.folder.parent.rglob("*")}
    shown = page.show((name, photographs[0].read_bytes()))
    assert shown.status_code in (200, 400, 422)
    added = {path for path in page.site.kept.folder.parent.rglob("*")} - before
    assert {path.parent.parent for path in added} <= {page.site.kept.folder}
    for row in page.site.kept.latest(9):
        assert "/" not in row["name"]
        assert len(row["name"]) <= 200


def _png(width, height, data):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_what_is_too_large_in_bytes_or_pixels_is_refused_and_leaves_nothing(page):
    bomb = _png(60_000, 60_000, zlib.compress(bytes(500_000)))
    stuffed = _png(8, 8, zlib.compress(bytes(50_000_000)))
    files = [
        ("large.png", bytes(2**20 + 1)),
        ("bomb.png", bomb),
        ("stuffed.png", stuffed),
        ("empty.png", b""),
        ("page.png", b"<html><script>alert(1)</script></html>"),
    ]
    shown = page.show(*files)
    assert shown.status_code == 200
    for text in ("larger than 1 MB", "3600000000 in all", "the file is empty"):
        assert text in shown.text, text
    assert shown.text.count("Not judged") >= 4
    kept = page.site.kept.folder
    assert list((kept / store.INCOMING).iterdir()) == []
    assert len(list((kept / store.IMAGES).iterdir())) == 5 - shown.text.count("Not judged")
    many = [("photographs", (f"{n}.png", b"x")) for n in range(9)]
    assert page.form("/judge", files=many).status_code == 413
    assert page.form("/judge", files=[("photographs", ("a.png", io.BytesIO(bytes(10 * 2**20))))]).status_code == 413
    assert page.form("/judge").status_code == 422
    # A request that does not say how long it is.
    pieces = (
        b'--b\r\nContent-Disposition: form-data; name="photographs"; filename="a.png"\r\n\r\n',
        *[bytes(2**20)] * 10,
    )
    kind = {"content-type": "multipart/form-data; boundary=b", "x-mvtec-tf": "1"}
    assert page.post("/api/judge", content=iter(pieces), headers=kind).status_code == 413
    assert list((kept / store.INCOMING).iterdir()) == []


def test_no_address_leads_out_of_the_page(page, photographs):
    page.show(photographs[0])
    for address in (
        "/static/../store.py",
        "/static/%2e%2e/store.py",
        "/photographs/..%2f..%2fpage.sqlite",
        "/page.sqlite",
        "/photographs/%2e%2e%2fpage.jpg",
        "/heat/999.png",
        "/docs",
        "/nothing",
        "/photographs/a'%20OR%201=1.jpg",
    ):
        assert page.get(address).status_code == 404, address
    assert page.get("/heat/x.png").status_code == 422
    assert "There is nothing at this address" in page.get("/nothing").text
    assert page.get("/api/nothing").json() == {"error": "There is nothing at this address."}
    paths = page.get("/api/openapi.json").json()["paths"]
    assert {"/api/models", "/api/judge", "/api/judgements"} <= set(paths)
    counts = page.get("/metrics").text
    assert 'mvtec_tf_judgements_total{model="small/1 ' in counts
    assert "mvtec_tf_photographs_asked_total 1\n" in counts
