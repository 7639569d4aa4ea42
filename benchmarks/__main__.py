"""List the benchmarks: `python -m benchmarks`."""

import ast
from pathlib import Path

MAIN_GUARD = 'if __name__ == "__main__":'
"""A module without this line is not a benchmark but a helper of one."""


def main() -> None:
    """Print the command of each benchmark and the first line of its docstring."""
    folder = Path(__file__).parent
    paths = {path.stem: path for path in folder.glob("*.py") if path.stem != "__main__"}
    for package in ("accuracy", "speed"):
        paths |= {f"{package}.{path.stem}": path for path in folder.glob(f"{package}/*.py")}
    paths |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    for name, path in sorted(paths.items()):
        source = path.read_text(encoding="utf-8")
        if MAIN_GUARD in source:
            text = ast.get_docstring(ast.parse(source)) or ""
            print(f"python -m benchmarks.{name:17} {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
