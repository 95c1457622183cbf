"""The command `mvtec-tf`: lists what can be done, and does it: `mvtec-tf fit --help`.

The commands are the absl binaries of this room under the names that a stranger would guess; the binaries' own names
work too, as does `python -m mvtec_tf.bin.NAME`.
"""

import ast
import difflib
import pathlib
import runpy
import sys
from collections.abc import Sequence

from mvtec_tf.bin import closed_pipe

# Command -> (binary, other names for it), in the order of a user's work: look, fit, judge, use; then what only some
# need.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "quickstart": ("quickstart", ("demo",)),
    "explore": ("explore_data", ("look",)),
    "fit": ("fit_probe", ("probe",)),
    "label-efficiency": ("label_efficiency", ("labels", "grid")),
    "train-cnn": ("train_cnn", ("train", "train-classifier", "train-supervised")),
    "generate-defects": ("generate_defects", ("diffusion",)),
    "pretrain": ("train_simclr", ("simclr",)),
    "finetune": ("finetune", ("fine-tune", "tune")),
    "baseline": ("fit_baseline", ("baselines",)),
    "judge": ("evaluate", ("eval",)),
    "compare": ("compare", ()),
    "explain": ("explain", ("heatmaps", "gradcam")),
    "export": ("export", ()),
    "distill": ("distill", ("distil", "student", "edge")),
    "predict": ("predict", ("score", "watch")),
    "drift": ("drift", ()),
    "serve": ("serve", ("page", "app")),
    "extract-features": ("extract_features", ("extract", "features")),
    "toy": ("make_toy", ("toy-factory",)),
    "fetch-mvtec": ("fetch_mvtec", ("fetch", "download")),
}
# What is asked for by these names, and is no command of its own.
_ELSEWHERE = {
    "tensorflow-serving": "`export` writes what it needs: cd saved_models && docker compose up. "
    "`serve` is a page for people; `predict --watch=FOLDER` judges what comes into a folder without a server.",
    "tensorboard": "TensorBoard is a program of its own: tensorboard --logdir=results",
    "test": "The tests are run in a checkout: make test",
}
# What a binary finds among its globals where it was started by its command.
IS_COMMAND = "_IS_COMMAND"
_ROOM = pathlib.Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names, or lists all. Returns the exit status, unless the command itself exits."""
    argv = list(sys.argv if argv is None else argv)
    closed_pipe.set_up()
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(listing(), flush=True)
        return 0
    if argv[1] == "--version":
        import mvtec_tf

        print(mvtec_tf.__version__, flush=True)
        return 0
    binary = _binaries().get(argv[1].replace("_", "-"))
    if binary is None:
        print(f"ERROR: {_unknown(argv[1])}", file=sys.stderr)
        return 2
    sys.argv = argv[1:]
    try:
        runpy.run_module(f"mvtec_tf.bin.{binary}", {IS_COMMAND: True}, "__main__", alter_sys=True)
    except KeyboardInterrupt:  # while the flags are loaded: `entry` tells of every later one
        print("ERROR: Interrupted by SIGINT, before anything was begun.", file=sys.stderr)
        return 130
    return 0


def listing() -> str:
    """One line for each command, from the first line of its binary's documentation."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name.ljust(width)}  {_first_line(binary)}" for name, (binary, _) in COMMANDS.items()]
    usage = "Usage: mvtec-tf COMMAND --flag=value ...; each command explains itself with mvtec-tf COMMAND --help."
    return "\n".join(["Commands, in the order of a user's work:", "", *lines, "", usage])


def _binaries() -> dict[str, str]:
    """Every name that a command goes by -> its binary."""
    own = {binary.replace("_", "-"): binary for binary, _ in COMMANDS.values()}
    other = {name: binary for binary, names in COMMANDS.values() for name in names}
    return own | other | {name: binary for name, (binary, _) in COMMANDS.items()}


def _unknown(name: str) -> str:
    if name.startswith("-"):
        return f"{name}: flags stand behind a command: mvtec-tf COMMAND {name}. `mvtec-tf --help` lists the commands."
    if name in _ELSEWHERE:
        return f"no command {name!r}. {_ELSEWHERE[name]}"
    meant, known = name.replace("_", "-").lower(), _binaries()
    near = [one for one in COMMANDS if one.startswith(meant)] or difflib.get_close_matches(meant, known, 1, 0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"no command {name!r}.{guess} `mvtec-tf --help` lists all."


def _first_line(binary: str) -> str:
    # Read, not imported: flags of two commands do not go together.
    text = (_ROOM / f"{binary}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
