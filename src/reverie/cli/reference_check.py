"""`python -m reverie.cli.reference_check check | check-vae DIR [DIR ...]`: our numbers beside the reference's.

`reverie.bench.reference_check` describes the folders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reverie.bench.reference_check import TOLERANCE, check_rollout, check_vae
from reverie.errors import ReverieError


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every folder's numbers are within TOLERANCE, 1 if not, 2 for folders that cannot be checked."""
    checks = {"check": check_rollout, "check-vae": check_vae}
    if len(arguments) < 2 or arguments[0] not in checks:
        print(f"usage: python -m reverie.cli.reference_check {{{'|'.join(checks)}}} DIR [DIR ...]")
        return 2
    code = 0
    for name in arguments[1:]:
        try:
            differences = checks[arguments[0]](Path(name))
        except ReverieError as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 2
            continue
        is_same = all(difference < TOLERANCE for difference in differences.values())  # nan is not
        figures = ", ".join(f"{what} {difference:.3g}" for what, difference in differences.items())
        print(f"{name}: largest difference of {figures}: {'the same' if is_same else 'NOT THE SAME'}")
        code = code or (0 if is_same else 1)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
