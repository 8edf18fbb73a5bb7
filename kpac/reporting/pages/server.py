"""Serves pages at a loopback address; renders scenes on demand."""

import logging
import re
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kpac.errors import UserError

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")  # accepted Host headers: keeps pages of other sites out (DNS rebinding)

log = logging.getLogger(__name__)


def serve(folder: Path, port: int, make_scene: Callable[[int], object], ready: Callable[[str], object]) -> None:
    """Serves a folder until Ctrl-C.

    Args:
        folder: folder of the pages.
        port: port to listen on; 0 for any free one.
        make_scene: writes the images of a scene, numbered from 1.
        ready: called with the address.

    Raises:
        UserError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, Scenes(folder, make_scene), directory=str(folder)))
    except OSError as error:
        raise UserError(f"port {port}: cannot be opened ({error.strerror})", "port") from None
    server.daemon_threads = True
    with server:
        ready(f"http://{HOST}:{server.server_port}/")
        server.serve_forever()


class Scenes:
    """Makes each scene once, on the first request for one of its files.

    Args:
        folder: folder of the pages.
        make: writes the images of a scene.
    """

    def __init__(self, folder: Path, make: Callable[[int], object]):
        self.folder, self.make = folder, make
        self._lock = threading.Lock()

    def need(self, path: str) -> None:
        """Makes the scene of a requested file, unless the file exists."""
        found = re.match(r"/(?:images/(\d+)/[\w-]+\.js|thumbnails/(\d+)\.webp)$", path)
        if not found or (self.folder / path[1:]).is_file():
            return
        with self._lock:
            if not (self.folder / path[1:]).is_file():
                self.make(int(found[1] or found[2]))


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, scenes: Scenes, *arguments: Any, **options: Any):
        self.scenes = scenes
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in NAMES:
            self.send_error(403, "use this server's loopback address")
            return
        try:
            self.scenes.need(self.path.partition("?")[0])
        except (UserError, IndexError) as error:
            log.error("%s", error)
            self.send_error(404, "this scene cannot be read")
            return
        super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_request(self, *_: Any) -> None:
        """Does not log successful requests."""
