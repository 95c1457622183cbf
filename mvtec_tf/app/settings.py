"""What the page is asked for, as plain data; nothing heavy is imported."""

import dataclasses
import ipaddress
import os
from typing import Literal

from mvtec_tf.errors import UsageError
from mvtec_tf.settings import field

PASSWORD = "MVTEC_TF_APP_PASSWORD"
# A password that is guessed at ten tries in five minutes: a year is a million tries.
LEAST_PASSWORD = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The page that an operator works with.

    Attributes:
      models: folder of all exported models, saved_models; the newest version of each can be asked.
      project: folder of the page's own: photographs that it was shown, verdicts, labels; made if missing.
      host: address that the page listens at. Another one than this machine's own needs a password in the
        environment variable MVTEC_TF_APP_PASSWORD.
      port: of the page; 0: a free one.
      language: of the page.
      max_file_mb: a larger photograph is refused before it is read, in MB.
      max_files: photographs that are sent at once.
      folders: folders on this machine below which the page may watch folders and films; none: it watches cameras only.
      fit_flagfile: flagfile that fits of the page are told, instead of the recipe few_labels and weights.
    """

    models: str = "saved_models"
    project: str = "results/page"
    host: str = "127.0.0.1"
    port: int = field(8600, least=0, most=65535)
    language: Literal["en", "de"] = "en"
    max_file_mb: int = field(64, least=1, most=512)
    folders: tuple[str, ...] = field((), paths=True)
    fit_flagfile: str = ""
    max_files: int = field(200, least=1)

    @property
    def is_local(self) -> bool:
        """Whether the page is for this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def most_bytes(self) -> int:
        """Of one photograph."""
        return self.max_file_mb * 2**20

    def check(self) -> None:
        """Raises UsageError: others could reach the page without a password, or with one that is guessed."""
        password = os.environ.get(PASSWORD, "")
        if not password and not self.is_local:
            raise UsageError(
                f"`host`={self.host}: others can reach this address. Set a password first, in the environment variable "
                f"{PASSWORD}."
            )
        if password and len(password) < LEAST_PASSWORD:
            raise UsageError(
                f"{PASSWORD}: a password of fewer than {LEAST_PASSWORD} characters is guessed. Lengthen it."
            )
