"""Drift: a lasting change in forecast errors or inputs of a stream.

    points + verdicts ─► per series: means of blocks ─► Page–Hinkley ──────────┐
                                   └─► mean over all series ─► ADWIN,          ├─► Drift (evidence), then a cool-down
                                                   Page–Hinkley, KSWIN (river) ┘

One river object a series and point would cost more than the scoring. So ``block_kernels`` reduces each
series, in one compiled pass, to the mean of every ``BLOCK_POINTS`` points in units of their usual spread, and
runs Page–Hinkley (Page 1954) over them as arrays. A test compares the numbers with river's. ``pooled`` gives
the mean over all series to river's own ADWIN (Bifet & Gavaldà 2007), Page–Hinkley and KSWIN (Raab et al.
2020). ``monitor`` combines the two.

Inputs are compared with the series' own profile of the hour, weekdays and weekends apart, so nights and
Sundays are no drift. An incident is no drift either: a flagged point does not count and mutes its series for
``MUTE_NS`` or ``MUTE_POINTS``, whichever ends first.
"""

from detectors.drift.monitor import Drift, DriftMonitor, SeriesDrift, compile_kernels

__all__ = ["Drift", "DriftMonitor", "SeriesDrift", "compile_kernels"]
