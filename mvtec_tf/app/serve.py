"""Starting the page."""

import os
import signal
import socket

from mvtec_tf.app.settings import PASSWORD, ServeSettings
from mvtec_tf.data.formats import layout
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.ownership import Owned


def serve(settings: ServeSettings) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Raises:
      UsageError: others could reach it without a password.
      UserError: the port is taken, the project is another page's or a category's of photographs, or the packages of the
        extra `app` are missing.
    """
    settings.check()
    try:
        import uvicorn

        from mvtec_tf.app import models
        from mvtec_tf.app.application import create
    except ImportError as error:
        raise UserError(f"The page needs {error.name}: python -m pip install 'mvtec_tf[app]'.") from error
    if layout.kinds(settings.project) or layout.category_of(os.path.realpath(settings.project)):
        raise UserError(f"`project`={settings.project}: photographs of a category lie there. Choose another folder.")
    with Owned(settings.project, "`project`"), _listening(settings) as listening:
        app = create(settings, os.environ.get(PASSWORD, ""))
        if missing := models.missing(settings.models):
            print(missing, flush=True)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"The page is at http://{host}:{listening.getsockname()[1]}/ (Ctrl-C ends it).", flush=True)
        # The server ends by itself on these, and then raises them once more.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none")
        uvicorn.Server(config).run(sockets=[listening])
        app.state.site.close()


def _listening(settings: ServeSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except socket.gaierror as error:
        raise UsageError(f"`host`={settings.host}: no such address ({error.strerror}).") from error
    except OSError as error:
        taken = f"`port`={settings.port}: cannot be listened at ({error.strerror}). Choose another one, or 0."
        raise UserError(taken) from error
