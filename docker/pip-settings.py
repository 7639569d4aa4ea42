"""
Print the build arguments and mounts with which pip finds the same packages inside an image build.

The settings are those of `pip config list` (files and environment). The script prints `arg
NAME=VALUE` for each of them, and `mount PATH` for each local file or folder that they name.
"""

import ast
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

WANTED = ("cert", "default-timeout", "extra-index-url", "find-links", "index-url")


def settings() -> dict[str, str]:
    """Return the settings of pip by name; the environment, which pip lists first, has priority."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    values: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in WANTED:
            values.setdefault(name, ast.literal_eval(value))
    return values


def local_path(word: str, *, is_index: bool) -> Path | None:
    """Return the path to mount for a `file:` URL or an absolute path, and None for any other."""
    url = urlparse(word)
    if url.scheme not in ("", "file") or not url.path.startswith("/"):
        return None
    path = Path(unquote(url.path))
    # The pages of a local index link to files next to its folder.
    return path.parent if is_index and path.parent != Path("/") else path


def main() -> None:
    """Print the settings, then each path once."""
    values = settings()
    mounts: dict[Path, None] = {}
    for name, value in values.items():
        sys.stdout.write(f"arg PIP_{name.upper().replace('-', '_')}={' '.join(value.split())}\n")
        for word in value.split():
            path = local_path(word, is_index=name.endswith("index-url"))
            if path is not None and path.exists():
                mounts[path] = None
    for path in mounts:
        sys.stdout.write(f"mount {path}\n")


if __name__ == "__main__":
    main()
