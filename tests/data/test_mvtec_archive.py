"""The original archive is unpacked only if it is the original one, only below its folder, and never by half."""

import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from mvtec_tf.data.formats import mvtec_archive
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError
from tests.conftest import run_binary


def _file(name, content=b"x"):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def _special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def _pack(path, *members):
    """Writes a .tar.xz and returns its SHA-256."""
    with tarfile.open(path, "w:xz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path):
    """A small archive in the form of the original one, and its SHA-256."""
    names = ("license.txt", "cap/train/good/000.png", "cap/test/good/000.png", "cap/test/dent/000.png")
    folder = _special("cap", tarfile.DIRTYPE)
    folder[0].mode = 0  # a folder that nobody may enter is unpacked as one of the user's own
    path = tmp_path / mvtec_archive.FILE
    return path, _pack(path, folder, *(_file(name, name.encode()) for name in names))


def _left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_verified_archive_becomes_a_folder_that_the_scanner_reads(archive, tmp_path):
    path, sha256 = archive
    root = mvtec_archive.unpack(path, tmp_path / "data", sha256)
    assert [record.path for record in records.scan([root])] == [
        "cap/train/good/000.png",
        "cap/test/dent/000.png",
        "cap/test/good/000.png",
    ]
    assert (root / "cap/test/dent/000.png").read_bytes() == b"cap/test/dent/000.png"
    assert mvtec_archive.unpack("gone", root, sha256) == root


def test_the_published_checksum_is_the_default(archive, tmp_path):
    with pytest.raises(UserError, match="expected cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"):
        mvtec_archive.unpack(archive[0], tmp_path / "data")
    assert _left(tmp_path) == [mvtec_archive.FILE]


@pytest.mark.parametrize(
    "guilty",
    [
        _file("../outside.png"),
        _file("cap/../../outside.png"),
        _file("/tmp/outside.png"),
        _file("cap\\..\\outside.png"),
        _special("cap/link", tarfile.SYMTYPE, "/etc/passwd"),
        _special("cap/link", tarfile.SYMTYPE, "train"),
        _special("cap/link", tarfile.LNKTYPE, "cap/train/good/000.png"),
        _special("cap/pipe", tarfile.FIFOTYPE),
        _special("cap/disk", tarfile.BLKTYPE),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type.decode()}",
)
def test_a_member_that_does_not_belong_there_stops_it_with_nothing_unpacked(tmp_path, guilty):
    path = tmp_path / "in" / "bad.tar.xz"
    path.parent.mkdir()
    sha256 = _pack(path, _file("cap/train/good/000.png"), guilty)
    with pytest.raises(UserError, match="Nothing was unpacked") as caught:
        mvtec_archive.unpack(path, tmp_path / "in" / "data", sha256)
    assert repr(guilty[0].name) in str(caught.value)
    assert _left(tmp_path / "in") == ["bad.tar.xz"]
    assert _left(tmp_path) == ["in"]


def test_a_member_cannot_replace_another(tmp_path):
    path = tmp_path / "twice.tar.xz"
    sha256 = _pack(path, _file("cap/a.png", b"first"), _file("cap/a.png", b"second"))
    with pytest.raises(FileExistsError):
        mvtec_archive.unpack(path, tmp_path / "data", sha256)
    assert _left(tmp_path) == ["twice.tar.xz"]


@pytest.mark.parametrize("content", [b"no archive at all", b"", None])
def test_a_damaged_archive_is_named(archive, tmp_path, content):
    path, _ = archive
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(UserError, match=r"not a readable \.tar\.xz"):
        mvtec_archive.unpack(path, tmp_path / "data", hashlib.sha256(path.read_bytes()).hexdigest())
    assert _left(tmp_path) == [mvtec_archive.FILE]


@pytest.fixture
def server(archive):
    """Serves the archive; knows ranges, and may break off in the middle. (address, requests, behaviour)"""
    content, requests, behaviour = archive[0].read_bytes(), [], {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers.get("Range")))
            if self.path != "/archive":
                return self.send_error(404) if self.path == "/gone" else self._send(200, b"<html>expired</html>")
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            if start >= len(content):
                return self.send_error(416)
            if behaviour.get("no_ranges"):
                return self._send(200, content)
            return self._send(206 if start else 200, content[start:])

        def _send(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: behaviour.pop("break_after", len(body))])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", requests, behaviour
        running.shutdown()
        thread.join()


def test_a_dead_link_and_a_wrong_file_are_passed_over(server, archive, tmp_path):
    address, requests, _ = server
    target = tmp_path / "new" / "a.tar.xz"
    urls = [f"{address}/{name}" for name in ("gone", "expired", "archive")]
    mvtec_archive.download(target, urls, archive[1])
    assert target.read_bytes() == archive[0].read_bytes()
    assert requests == [("/gone", None), ("/expired", None), ("/archive", None)]
    assert _left(target.parent) == ["a.tar.xz"]


@pytest.mark.parametrize("no_ranges", [False, True])
def test_a_broken_download_is_continued_by_the_next_call(server, archive, tmp_path, no_ranges):
    address, requests, behaviour = server
    behaviour |= {"break_after": 100, "no_ranges": no_ranges}
    target = tmp_path / "new" / "a.tar.xz"
    with pytest.raises(UserError, match=r"ended after 100 of|IncompleteRead"):
        mvtec_archive.download(target, [f"{address}/archive"], archive[1])
    assert not target.exists()
    mvtec_archive.download(target, [f"{address}/archive"], archive[1])
    assert target.read_bytes() == archive[0].read_bytes()
    assert requests[-1] == ("/archive", "bytes=100-")
    assert _left(target.parent) == ["a.tar.xz"]


def test_a_download_that_was_whole_but_for_its_name_is_not_repeated(server, archive, tmp_path):
    address, _, _ = server
    (tmp_path / ".partial.a.tar.xz").write_bytes(archive[0].read_bytes())
    assert mvtec_archive.download(tmp_path / "a.tar.xz", [f"{address}/archive"], archive[1]).exists()


def test_without_a_network_the_message_says_how_to_get_it_by_hand(tmp_path):
    with pytest.raises(UserError, match=r"by hand from https://www\.mvtec\.com") as caught:
        mvtec_archive.download(tmp_path / "a.tar.xz", ["http://127.0.0.1:1/archive"], "0")
    assert "http://127.0.0.1:1/archive" in str(caught.value)
    assert _left(tmp_path) == []


def test_the_binary_refuses_another_archive_and_leaves_nothing(archive, tmp_path):
    done = run_binary("fetch_mvtec", f"--archive={archive[0]}", f"--out={tmp_path / 'data'}", check=False)
    assert done.returncode == 1
    assert "not the original archive" in done.stderr
    assert _left(tmp_path) == [mvtec_archive.FILE]
