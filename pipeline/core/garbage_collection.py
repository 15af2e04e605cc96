"""Settings of the garbage collector for imports and large batches."""

from __future__ import annotations

import gc

#: New objects, and collections of younger ones, between two collections of each generation.
RARE_COLLECTIONS = (50_000, 20, 100)


def collect_garbage_rarely() -> None:
    """Make collections rare.

    Imports make hundreds of thousands of objects that stay, and a batch makes 20,000 short-lived ones (the
    messages of a client). Traversing them was an eighth of the CPU time of a short command.
    """
    gc.set_threshold(*RARE_COLLECTIONS)


def reduce_garbage_collection() -> None:
    """Make collections rare, and exclude the objects that exist now.

    Traversing those took a third of the time of decoding small records.
    """
    gc.collect()
    gc.freeze()
    collect_garbage_rarely()
