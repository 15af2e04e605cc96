"""Write the pinned figures again, after an intended change of detection.

Use: ``python -m tests.accuracy.pin``.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.accuracy import DATA
from tests.accuracy.slice import PINNED, SLICE, TIERS, figures


def main() -> None:
    with TemporaryDirectory() as made:
        new = {tier: {name: figures(tier, name, DATA, Path(made) / name) for name in SLICE} for tier in TIERS}
    PINNED.write_text(json.dumps(new, indent=1) + "\n")


if __name__ == "__main__":
    main()
