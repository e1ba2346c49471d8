"""Makes the samples that these tests import: videos whose frames carry their number, in the true formats."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
