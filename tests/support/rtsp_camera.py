"""A camera by RTSP (RFC 2326): JPEG pictures (RFC 2435) interleaved with its answers, behind a password."""

import base64
import contextlib
import socketserver
import struct
import threading
import time

# Pixels of each side.
SIZE = 64
_TRACK = "m=video 0 RTP/AVP 26\r\na=control:track\r\na=rtpmap:26 JPEG/90000\r\n"
_SESSION = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{_TRACK}"
_ANSWERS = {
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SESSION)}\r\n\r\n{_SESSION}",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
    "PLAY": "Session: 1\r\n\r\n",
}


def _packet(jpeg, number):
    """A picture of 4:2:0 with Huffman's tables of the standard, as one packet."""
    tables, at = b"", 2
    while jpeg[at + 1] != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xDB:
            tables += jpeg[at + 5 : at + 2 + length]
        at += 2 + length
    scan = jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") : -2]
    head = struct.pack(">BBHII", 0x80, 0x80 | 26, number, number * 9000, 1)
    head += struct.pack(">IBBBB", 0, 1, 255, SIZE // 8, SIZE // 8) + struct.pack(">HH", 0, len(tables))
    content = head + tables + scan
    return b"$\0" + struct.pack(">H", len(content)) + content


class RtspCamera:
    """Shows its pictures to eva, whose password is s3cret, and then nothing until it is closed.

    Args:
      pictures: JPEG files of `SIZE`, 4:2:0.
      port: to listen at; 0: a free one.
    """

    def __init__(self, pictures, port=0):
        self.runs = True
        camera, allowed = self, b"Basic " + base64.b64encode(b"eva:s3cret")

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(ConnectionError):
                    while line := self.rfile.readline():
                        method = line.split(b" ")[0].decode()
                        heads = dict(one.split(b": ", 1) for one in iter(lambda: self.rfile.readline().strip(), b""))
                        status, told = "200 OK", _ANSWERS.get(method, "\r\n")
                        if method == "DESCRIBE" and heads.get(b"Authorization") != allowed:
                            status, told = "401 Unauthorized", 'WWW-Authenticate: Basic realm="line"\r\n\r\n'
                        number = heads[b"CSeq"].decode()
                        self.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{told}".encode())
                        if method == "PLAY":
                            for place, picture in enumerate(pictures):
                                self.wfile.write(_packet(picture, place))
                            while camera.runs:
                                time.sleep(0.01)
                            return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_address[1]

    def close(self):
        """Breaks off."""
        self.runs = False
        self._server.shutdown()
        self._server.server_close()
