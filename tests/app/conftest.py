"""A page over the session's small export."""

import shutil
import time

import pytest
from fastapi.testclient import TestClient

from mvtec_tf.app.application import create
from mvtec_tf.app.settings import ServeSettings


@pytest.fixture
def settings(exported, tmp_path):
    return ServeSettings(models=str(exported.parents[1]), project=str(tmp_path / "page"), max_file_mb=1, max_files=8)


class Page(TestClient):
    """A browser on the page: it has a session, and sends its token."""

    def __init__(self, settings, password="", **more):
        super().__init__(create(settings, password, **more), base_url="http://127.0.0.1:8600", follow_redirects=False)
        self.site = self.app.state.site

    def form(self, address, data=None, **more):
        token = self.site.guard.token(self.cookies["mvtec_tf_session"])
        return self.post(address, data={"csrf": token} | (data or {}), **more)

    def show(self, *files, **more):
        sent = [file if isinstance(file, tuple) else (file.name, file.read_bytes()) for file in files]
        return self.form("/judge", files=[("photographs", file) for file in sent], **more)


@pytest.fixture
def page(settings):
    with Page(settings) as browser:
        browser.get("/")
        yield browser
        browser.site.close()


def until(there):
    """Waits for what another thread does."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def root(exported, tmp_path):
    """saved_models/small/1, which may be written to."""
    shutil.copytree(exported.parents[1], tmp_path / "saved_models")
    return tmp_path / "saved_models"


@pytest.fixture(scope="session")
def photographs(toy):
    """(a defective part, a good one), PNG files."""
    return toy / "flange" / "test" / "chip" / "000.png", toy / "flange" / "test" / "good" / "000.png"
