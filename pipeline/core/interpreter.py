"""Settings of the interpreter: collections of garbage, and turns of threads."""

from __future__ import annotations

import gc
import sys

#: New objects, and collections of younger ones, between two collections of each generation.
RARE_COLLECTIONS = (50_000, 20, 100)
#: Longest time that a thread holds the interpreter while another one waits for it. A batch gives the
#: interpreter away some forty times (compiled kernels, the database), and each time a busy thread of the
#: background may take it: by default for 5 ms.
SWITCH_SECONDS = 0.0005


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


def take_turns_often() -> None:
    """Let the loop wait less for threads in the background, such as that of revisions."""
    sys.setswitchinterval(SWITCH_SECONDS)
