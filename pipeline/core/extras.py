"""Packages that only training needs: the extra ``forewatch[train]``.

Scoring, backfill, alerts and every other command work without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.core.errors import NotInstalled

_TRAINING_PACKAGES = {"torch": "PyTorch", "distributed": "Dask", "cryptography": "cryptography"}
#: Packages that only the worker needs; its certificates are made on this machine.
_WORKER_PACKAGES = ("torch", "cryptography")


def missing_for_training(*, on_this_machine: bool = True) -> str | None:
    """Return why training is impossible and what to install; None if nothing is missing.

    With ``on_this_machine`` False the workers run elsewhere, and only Dask is needed to reach them.
    """
    missing = [
        name
        for module, name in _TRAINING_PACKAGES.items()
        if (on_this_machine or module not in _WORKER_PACKAGES) and not _is_installed(module)
    ]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"training needs {' and '.join(missing)}, which {verb} not installed: pip install 'forewatch[train]'"
    )


def require_training() -> None:
    """Raise NotInstalled if a package that training needs is missing."""
    if reason := missing_for_training():
        raise NotInstalled(reason)


def require_cluster(*, local: bool) -> None:
    """Raise NotInstalled if a package that a Dask cluster needs is missing.

    ``local``: its workers run on this machine, and certificates are made here.
    """
    needed = ("distributed", "cryptography") if local else ("distributed",)
    if missing := [_TRAINING_PACKAGES[module] for module in needed if not _is_installed(module)]:
        raise NotInstalled(
            f"--cluster needs {' and '.join(missing)}, not installed here: pip install 'forewatch[train]'"
        )


def require_formats(module: str, format_name: str) -> None:
    """Raise NotInstalled if the package of a record format is missing."""
    if not _is_installed(module):
        package = {
            "google.protobuf": "protobuf",
            "opentelemetry.proto": "opentelemetry-proto",
        }.get(module, module)
        raise NotInstalled(
            f"{format_name} needs {package}, which is not installed: pip install 'forewatch[formats]'"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
