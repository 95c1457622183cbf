"""Who does the work, as plain data; Apache Beam is not imported."""

import dataclasses
import importlib.util
import shlex
from typing import Literal

from mvtec_tf import settings as settings_lib
from mvtec_tf.errors import UsageError, UserError

DIRECT = "direct"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """Whose workers do the work.

    Attributes:
      runner: Apache Beam runner whose workers do the work, shard by shard: direct is this machine, portable any job
        server. All workers must see images, model and out under the same names. Unset: this process.
      beam_options: options of Apache Beam and of the runner, as at Beam's own command line, in one text:
        "--direct_num_workers=2 --direct_running_mode=multi_processing".
    """

    runner: Literal["direct", "portable", "flink", "spark", "dataflow"] | None = None
    beam_options: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines may do the work, which do not know this process' folder."""
        return self.runner not in (None, DIRECT)

    def check_runner(self) -> None:
        """Raises UsageError for options that nothing reads, UserError if Apache Beam is not installed."""
        if self.runner is None:
            settings_lib.refuse_unread(self, ["beam_options"], "`runner` is not given")
        elif importlib.util.find_spec("apache_beam") is None:
            raise UserError("Apache Beam is not installed. Install it by: pip install apache-beam")
        self.options()

    def options(self) -> list[str]:
        """The options as a list. Raises UsageError if a quote in them is not closed."""
        try:
            return shlex.split(self.beam_options)
        except ValueError as error:
            raise UsageError(f"`beam_options`={self.beam_options}: cannot be split into options ({error}).") from error
