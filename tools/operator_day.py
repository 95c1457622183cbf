"""One operator's day on the page: parts come through a watched folder, a lamp dims, the page is killed again and again.

python -m tools.operator_day --models=saved_models --project=NEW_FOLDER

Needs the extras app and test. The parts are flanges of the toy factory, drawn from a seed; the models should be of
flanges of the same size, drawn from another seed. It is shown that the alarm comes soon after the lamp dims and not
before, and that every part is in the log exactly once.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import httpx
import numpy as np
from PIL import Image

from mvtec_tf.app import store
from mvtec_tf.data.toy.factory import write_toy_factory

# So many parts wait at most: a line does not run ahead of its camera by a thousand.
_AHEAD = 40
_PAUSE = 0.2
_KINDS = 3


class Page:
    """A page in a process of its own that watches a folder, and goes on with it when it was killed.

    Args:
      models, project: as of the command.
      line: the folder.
    """

    def __init__(self, models: str, project: pathlib.Path, line: pathlib.Path) -> None:
        self.project, self._flags = project, [f"--models={models}", f"--project={project}", f"--folders={line}"]
        self.start()
        with httpx.Client(base_url=self.address, timeout=300) as browser:
            token = re.search('name="csrf" content="(.*?)"', browser.get("/").text)[1]
            asked = {"csrf": token, "kind": "folder", "place": str(line), "take": "each", "who": "script"}
            assert browser.post("/source", data=asked).status_code == 303

    def start(self) -> None:
        """Starts it; returns when it answers."""
        command = [sys.executable, "-m", "mvtec_tf.bin.serve", *self._flags, "--port=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0].rstrip("/")

    def kill(self) -> None:
        """Kills it in the middle of whatever it does, and starts it again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.start()

    def end(self) -> None:
        """Ends it as a person would."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()

    def ask(self, query: str) -> list[tuple]:
        """What stands in its database."""
        file = self.project / store.FILE
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def logged(self) -> int:
        """Parts in the log."""
        return self.ask("SELECT count(*) FROM parts")[0][0]


def draw(folder: pathlib.Path, size: int, parts: int, defects: int, seed: int) -> tuple[list[pathlib.Path], set[int]]:
    """The parts of a day in their order, and which of them are defective; drawn if they are not there."""
    per_defect = -(-defects // _KINDS)
    write_toy_factory(
        folder, seed=seed, image_size=size, train_good=1, test_good=parts, per_defect=per_defect, products=("flange",)
    )
    files = sorted((folder / "flange" / "test").rglob("*.png"))
    good = [file for file in files if file.parent.name == "good"]
    bad = [file for file in files if file.parent.name != "good"]
    rng = np.random.default_rng(seed)
    at = set(rng.choice(parts, defects, replace=False).tolist())
    shown_bad = iter(rng.permutation(len(bad))[:defects].tolist())
    shown_good = iter(good)
    return [bad[next(shown_bad)] if number in at else next(shown_good) for number in range(parts)], at


def main(arguments: list[str] | None = None) -> None:
    """Plays the day and prints what it has come to; exits with 1 where it is not as it should be.

    Args:
      arguments: of the command line; None: those that it was started with.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("models", "project"):
        parser.add_argument(f"--{name}", required=True)
    for name, value in (("parts", 2000), ("defects", 60), ("dims_at", 1200), ("kills", 10), ("seed", 7), ("size", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dims_by", type=float, default=0.2)
    asked = parser.parse_args(arguments)
    project = pathlib.Path(asked.project).resolve()
    line = project / "line"
    line.mkdir(parents=True)
    files, defective = draw(project / "toy", asked.size, asked.parts, asked.defects, asked.seed)
    page, start = Page(asked.models, project / "page", line), time.monotonic()
    kills = iter([asked.parts * (2 * number + 1) // (2 * asked.kills) for number in range(asked.kills)])
    killed, next_kill = 0, next(kills, None)
    for number in itertools.count():
        # The last parts are waited for, and still killed.
        if number >= asked.parts and (page.logged() == asked.parts or page.process.poll() is not None):
            break
        if number < asked.parts:
            pixels = np.asarray(Image.open(files[number]).convert("RGB"), np.float32)
            dimmed = pixels * (1 - asked.dims_by) if number >= asked.dims_at else pixels
            partial = line / f".{number:05d}.png"
            Image.fromarray(np.rint(dimmed).astype(np.uint8)).save(partial, "PNG")
            os.replace(partial, line / f"{number:05d}.png")
        while (done := page.logged()) < min(number - _AHEAD, asked.parts):
            time.sleep(_PAUSE)
        if next_kill is not None and done >= next_kill:
            page.kill()
            killed, next_kill = killed + 1, next(kills, None)
        if number >= asked.parts:
            time.sleep(_PAUSE)
    seconds = time.monotonic() - start
    told = httpx.get(f"{page.address}/api/watch", timeout=300).json()["models"]
    found = [_log(page, asked.parts, killed, seconds), *(_model(page, one, asked, defective) for one in told)]
    page.end()
    sys.exit(not all(found))


def _log(page: Page, parts: int, killed: int, seconds: float) -> bool:
    """Prints whether every part is in the log exactly once."""
    names = Counter(name for (name,) in page.ask("SELECT name FROM parts"))
    twice = page.ask("SELECT count(*) FROM (SELECT 1 FROM judgements GROUP BY sha256, model HAVING count(*) > 1)")[0][0]
    refused = page.ask("SELECT count(*) FROM parts WHERE error <> ''")[0][0]
    alone = page.ask("SELECT count(*) FROM judgements WHERE sha256 NOT IN (SELECT sha256 FROM parts)")[0][0]
    wrong = [number for number in range(parts) if names[f"{number:05d}.png"] != 1]
    print(
        f"{parts} parts, {killed} kills, {seconds:.0f} s: {len(names)} in the log, {len(wrong)} missing or twice, "
        f"{twice} verdicts twice, {alone} verdicts of no part, {refused} refused"
    )
    return not (wrong or twice or refused or alone) and len(names) == parts


def _model(page: Page, told: dict, asked: argparse.Namespace, defective: set[int]) -> bool:
    """Prints what a model has said, and whether its alarm came in time."""
    rows = page.ask(
        "SELECT parts.name, verdict FROM judgements JOIN parts USING (sha256) "
        f"WHERE model LIKE '{told['name']}/%' ORDER BY judgements.id"
    )
    in_order = [name for name, _ in rows] == sorted(name for name, _ in rows)
    for words, of in (("before the lamp dims", range(asked.dims_at)), ("after", range(asked.dims_at, asked.parts))):
        said = {int(name[:5]): verdict != "good" for name, verdict in rows}
        found = sum(said[number] for number in of if number in defective)
        stopped = sum(said[number] for number in of if number not in defective)
        defects = sum(number in defective for number in of)
        print(
            f"{told['name']}, {words}: {found} of {defects} defects found, {stopped} of {len(of) - defects} good parts "
            "stopped"
        )
    alarms = sorted((alarm["raised"], alarm["statistic"], alarm["since"]) for alarm in told["alarms"])
    for raised, statistic, since in alarms:
        late = raised - asked.dims_at
        print(f"{told['name']}: alarm of {statistic} at part {raised}, {late} after the lamp dims; since part {since}")
    first = alarms[0][0] if alarms else None
    in_time = first is not None and asked.dims_at < first <= asked.dims_at + 100
    print(f"{told['name']}: judged in order: {in_order}; the first alarm within 100 parts and not before: {in_time}")
    return in_order and in_time


if __name__ == "__main__":
    main()
