"""Lists the commands: `python -m mvtec_tf`; and runs one: `python -m mvtec_tf NAME --help`."""

import ast
import difflib
import pathlib
import runpy
import sys

# In the order of a user's work: look, train, judge, use; then what only some need.
COMMANDS = (
    "quickstart",
    "explore_data",
    "label_efficiency",
    "fit_probe",
    "fit_baseline",
    "train_cnn",
    "train_simclr",
    "extract_features",
    "evaluate",
    "compare",
    "explain",
    "export",
    "predict",
    "make_toy",
    "fetch_mvtec",
    "benchmark",
)
_ROOM = pathlib.Path(__file__).parent / "bin"


def listing() -> str:
    """One line for each command, from the first line of its own documentation."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name.ljust(width)}  {_first_line(name)}" for name in COMMANDS]
    usage = "Usage: python -m mvtec_tf.bin.NAME --flag=value ...; each explains itself with --help."
    return "\n".join(["Commands, in the order of a user's work:", "", *lines, "", usage])


def _first_line(name: str) -> str:
    # Read, not imported: flags of two commands do not go together.
    text = (_ROOM / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)).splitlines()[0]


def main(argv: list[str]) -> int:
    """Runs the command that `argv` names, or lists all. Returns the exit status."""
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(listing())
        return 0
    name = argv[1]
    if name not in COMMANDS:
        meant = name.replace("-", "_")
        near = [one for one in COMMANDS if one.startswith(meant)] or difflib.get_close_matches(meant, COMMANDS, 1, 0.5)
        guess = f" Did you mean {near[0]}?" if near else ""
        print(f"ERROR: no command {name!r}.{guess} `python -m mvtec_tf` lists all.", file=sys.stderr)
        return 2
    sys.argv = argv[1:]
    runpy.run_module(f"mvtec_tf.bin.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
