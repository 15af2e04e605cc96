"""Compile the modules that forewatch imports, and no others: bytecode of all packages takes 115 MB.

``python compile_used.py`` runs in the environment of the image. The bytecode is not compared with the times of
the sources, so that it is the same in each build.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import sys

PACKAGES = ("forewatch", "pipeline", "detectors", "storage")
#: Imported late or by name.
OTHERS = (
    "confluent_kafka",
    "distributed.cli.dask_scheduler",
    "exchange_calendars",
    "matplotlib.backends.backend_agg",
    "pandas",
    "psycopg_binary",
    "river.drift",
    "uvicorn.protocols.http.h11_impl",
)


def import_all() -> None:
    """Import every module of ours, except scripts and what needs an extra that is not installed."""
    names = list(OTHERS)
    for package in PACKAGES:
        names.append(package)
        folder = importlib.import_module(package).__path__
        names += [one.name for one in pkgutil.walk_packages(folder, f"{package}.", onerror=print)]
    for name in names:
        if name.endswith("__main__") or name.startswith("storage.migrations"):
            continue  # a script
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not compiled: {name} ({error})")


def main() -> None:
    """Compile the sources of all imported modules below this environment."""
    import_all()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(sys.prefix) and file.endswith(".py"):
            py_compile.compile(file, invalidation_mode=mode)


if __name__ == "__main__":
    main()
