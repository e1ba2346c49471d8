"""`python -m reverie`: the command `reverie`, where the script is not on the path; also under torchrun."""

import sys

from reverie.cli import main

if __name__ == "__main__":
    sys.exit(main())
