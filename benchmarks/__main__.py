"""What there is to run: `python -m benchmarks`."""

import ast
from pathlib import Path

HELPERS = {"__init__", "cases", "clients", "logs", "records", "scoring", "servers"}


def main() -> None:
    """List the benchmarks with the first line of each module's docstring."""
    folder = Path(__file__).parent
    scripts = {path.stem: path for path in folder.glob("*.py") if path.stem != "__main__"}
    for kind in ("accuracy", "speed"):
        scripts |= {f"{kind}.{path.stem}": path for path in folder.glob(f"{kind}/*.py")}
    scripts |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    for name, path in sorted(scripts.items()):
        if path.stem in HELPERS:
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"python -m benchmarks.{name:17} {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
