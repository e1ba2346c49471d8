"""Build the documentation site: `make docs`, or `python tools/docs.py [--serve]`.

docs/reference/command-line.md is written here from the commands themselves, and is not in the repository; everything
else in docs/ is written by hand.  The build is strict (a dead link or an unknown name fails it) and uses no network.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import tyro

from reverie.cli import COMMANDS, Command

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/command-line.md"
WIDTH = 100
HEAD = """# Command line

Every command of `reverie`, as `reverie COMMAND --help` shows it. This page is generated from the commands themselves.

"""


def command_line_page() -> str:
    """The reference of the command line, Markdown: a table of the commands, then the help of each."""
    rows = "\n".join(f"| [`reverie {c.name}`](#reverie-{c.name.replace(' ', '-')}) | {c.summary} |" for c in COMMANDS)
    parts = [f"## reverie {command.name}\n\n```text\n{help_of(command)}\n```\n" for command in COMMANDS]
    return HEAD + f"| command | |\n|---|---|\n{rows}\n\n" + "\n".join(parts)


def help_of(command: Command) -> str:
    """What `reverie COMMAND --help` prints on a terminal of WIDTH columns."""
    config = command.load()
    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            description = inspect.cleandoc(config.__doc__ or command.summary)
            tyro.cli(config, prog=f"reverie {command.name}", description=description, args=["--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip()


def main(arguments: list[str]) -> int:
    PAGE.write_text(command_line_page(), encoding="utf-8")
    words = ["serve"] if "--serve" in arguments else ["build", "--strict", "--clean"]
    return subprocess.run([sys.executable, "-m", "zensical", *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
