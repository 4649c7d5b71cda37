#!/usr/bin/env python3
"""Starts Tunesmith, and sets it up on first use.

    python launch.py                     open the app
    python launch.py setup               only set up, or mend and update what is there
    python launch.py setup --with NAME   add what some settings need, such as galore or wandb
    python launch.py test [pytest args]  set up what the tests need too, and run them
    python launch.py COMMAND ...         every other command: see python launch.py --help

The packages of requirements.lock go into .venv beside this file (core/setup/environment.py), which
then belongs to the Python that made it; everything else runs in there.

This file has to parse on a Python that is too old, so that it can say so: its syntax is no newer
than Python 3.6, and what needs more is imported after the check.
"""

import os
import sys

# The oldest Python that the pins have builds for: pandas, numpy and transformers ask for it.
MINIMUM = (3, 11)
ROOT = os.path.dirname(os.path.abspath(__file__))


def main(argv):
    """Runs the command in `argv` and returns its exit code; mostly replaces this process."""
    if sys.version_info < MINIMUM:
        say("launch.py: " + too_old())
        return 1
    from core.errors import SetupError
    from core.language import _, language_of_shell, use
    from core.setup.environment import LOCK, TEST_LOCK, Environment

    use(language_of_shell())
    command = argv[0] if argv else ""
    environment = Environment(ROOT)
    try:
        extras = extras_asked_for(argv[1:]) if command == "setup" else []
        changed = environment.ensure([LOCK, TEST_LOCK] if command == "test" else [LOCK])
        if extras:
            environment.add(extras)
            changed = True
    except SetupError as error:
        say("launch.py: {}".format(error))
        return 1
    except KeyboardInterrupt:
        say("\n" + _("Stopped. The next start sets up again; pip keeps what it has downloaded."))
        return 130
    if command == "setup":
        if not changed:
            say(_("Tunesmith is set up in {folder}; nothing to do.", folder=environment.venv))
        return 0
    if command == "test":
        return run_tests(environment.python, argv[1:])
    if os.path.realpath(sys.prefix) != os.path.realpath(environment.venv):
        return run_inside(environment.python, argv)

    from core.cli import main as run_command

    return run_command(argv)


def extras_asked_for(words):
    """What stands behind `--with`: names of core.setup.extras with commas between them."""
    from core.errors import SetupError
    from core.language import _
    from core.setup.extras import find, listed

    names = []
    words = list(words)
    while words:
        word, _equals, value = words.pop(0).partition("=")
        if word != "--with" or not (value or words):
            raise SetupError(
                _("setup takes nothing but --with NAME[,NAME]."),
                _("Names: {names}.", names=listed()),
            )
        names += (value or words.pop(0)).split(",")
    return find([name.strip() for name in names])


def say(text):
    """Standard error: standard output belongs to the command that follows (--json)."""
    print(text, file=sys.stderr, flush=True)


def too_old():
    """The sentence for a Python that the packages do not support, naming a newer one if found."""
    from shutil import which

    text = "Tunesmith needs Python {}.{} or newer; this is {}.{}.{} ({}).".format(
        *(MINIMUM + tuple(sys.version_info[:3]) + (sys.executable,))
    )
    for minor in (13, 12, 11, 14):
        name = "python3.{}".format(minor)
        if which(name):
            return "{} There is a newer one here: {} launch.py".format(text, name)
    return text + " Install a newer one from python.org or your system's packages."


def run_inside(python, argv):
    """Goes on in the environment's Python. Returns only on Windows, which has no exec."""
    command = [python, os.path.join(ROOT, "launch.py")] + argv
    if os.name != "nt":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(python, command)
    import subprocess

    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reached the child too, and how it ends is the child's business


def run_tests(python, arguments):
    """pytest on all cores, whose closing line is the last output; ruff and mypy are tests as well.

    What stands in `arguments` wins over what is asked for here. A file stays with one process, so
    that what its tests share is made once; tests/conftest.py says how many processes there are and
    puts the long files first.
    """
    import subprocess

    command = ["pytest", "--durations=10"]
    if not any(word.endswith("no:xdist") for word in arguments):
        command += ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    command += arguments
    say("$ " + " ".join(command))
    return 1 if subprocess.call([python, "-m"] + command, cwd=ROOT) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
