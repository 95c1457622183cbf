"""The original archive of MVTec AD: fetched if wanted, verified, and unpacked whole or not at all.

The data set is not part of this project and has a licence of its own (CC BY-NC-SA 4.0).
"""

import hashlib
import http.client
import lzma
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import BinaryIO

from mvtec_tf import files
from mvtec_tf.errors import UserError

FILE = "mvtec_anomaly_detection.tar.xz"
SHA256 = "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
# The publisher's share links expire from time to time; the newest stands first, and the checksum decides.
URLS = (
    "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/" + FILE,
    "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f283/download/420938113-1629960298/" + FILE,
    "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/" + FILE,
)
_CHUNK = 2**20
_TIMEOUT_SECONDS = 60


def download(target: files.PathLike, urls: Sequence[str] = URLS, sha256: str = SHA256) -> pathlib.Path:
    """Fetches the archive to `target`, from the first of `urls` that has it; nothing to do if it is there.

    What an interrupted download has fetched lies beside `target` under a name with a dot and is continued
    by the next call.

    Raises:
      UserError: none of the addresses gave the file whose SHA-256 is `sha256`; says what each did.
    """
    target = pathlib.Path(target)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial.{target.name}")
    reasons = []
    for url in urls:
        print(f"Downloading {url}", flush=True)
        try:
            _fetch(url, partial)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reasons.append(f"{url}: {error}")
            continue
        with partial.open("rb") as file:
            found = _sha256(file)
        if found == sha256:
            os.replace(partial, target)
            return target
        partial.unlink()
        reasons.append(f"{url}: gave another file (SHA-256 {found}, expected {sha256}); removed")
    raise UserError(
        f"{target}: could not be downloaded.\n  " + "\n  ".join(reasons) + f"\nThe same call continues an interrupted "
        f"download. Or get {FILE} by hand from {PAGE} and say where it is."
    )


def unpack(archive: files.PathLike, target: files.PathLike, sha256: str = SHA256) -> pathlib.Path:
    """Unpacks the verified archive into the new directory `target`, whole or not at all.

    Only plain files and folders below `target` are taken. Owners, permissions and times of the archive are not.

    Args:
      archive: the `.tar.xz`.
      target: left as it is if it exists, since it is whole then.
      sha256: of the archive, hex; checked before anything is unpacked.

    Raises:
      UserError: there is no such file, it is another one, or something in it does not belong in a data set.
    """
    archive, target = pathlib.Path(archive), pathlib.Path(target)
    if target.is_dir():
        return target
    if not archive.is_file():
        raise UserError(f"{archive}: no such file. Get {FILE} from {PAGE}.")
    # One open file for both, so that what is unpacked is what was verified.
    with archive.open("rb") as file:
        print(f"Verifying {archive}", flush=True)
        found = _sha256(file)
        if found != sha256:
            raise UserError(
                f"{archive}: SHA-256 is {found}, expected {sha256}. This is not the original archive, or it was "
                f"damaged on its way. Get it again from {PAGE}."
            )
        file.seek(0)
        print(f"Unpacking into {target}", flush=True)
        with files.new_directory(target) as directory:
            try:
                with tarfile.open(fileobj=file, mode="r:xz") as tar:
                    _unpack(tar, directory, archive)
            except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
                raise UserError(f"{archive}: not a readable .tar.xz ({error}).") from error
    return target


def _unpack(tar: tarfile.TarFile, directory: pathlib.Path, archive: pathlib.Path) -> None:
    speak = files.speaker()
    for number, member in enumerate(tar, 1):
        path = directory / _safe_name(member, archive)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive: no member may take the place of another.
        with tar.extractfile(member) as source, path.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
        speak(f"{number:,} files unpacked")


def _safe_name(member: tarfile.TarInfo, archive: pathlib.Path) -> str:
    """The member's path, if it is a plain file or folder that stays below the directory."""
    name = member.name
    parts = pathlib.PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts:
        raise UserError(f"{archive}: its member {name!r} would be unpacked elsewhere. Nothing was unpacked.")
    if not (member.isreg() or member.isdir()):
        raise UserError(f"{archive}: its member {name!r} is a link or a device. Nothing was unpacked.")
    return name


def _fetch(url: str, partial: pathlib.Path) -> None:
    """Downloads to `partial`, going on after what is there already."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing comes after what is there; the checksum will say whether it is whole
        raise
    with answer:
        # A server that does not know ranges sends all of it again.
        resumed = answer.status == http.client.PARTIAL_CONTENT
        whole = int(answer.headers.get("Content-Length", 0)) + (have if resumed else 0)
        speak = files.speaker()
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                speak(f"{file.tell() / 1e6:,.0f} of {whole / 1e6:,.0f} MB")
        if whole and partial.stat().st_size < whole:
            raise ConnectionError(f"ended after {partial.stat().st_size:,} of {whole:,} bytes")


def _sha256(file: BinaryIO) -> str:
    digest, speak = hashlib.sha256(), files.speaker()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        speak(f"{file.tell() / 1e6:,.0f} MB verified")
    return digest.hexdigest()
