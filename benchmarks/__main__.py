"""What there is to run: `python -m benchmarks`."""

import ast
from pathlib import Path

HELPERS = {"__init__", "__main__", "cases", "clients", "logs", "records", "scoring", "servers"}


def main() -> None:
    """List the benchmarks with the first line of what they say of themselves."""
    folder = Path(__file__).parent
    found = {path.stem: path for path in folder.glob("*.py") if path.stem not in HELPERS}
    found |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    for name, path in sorted(found.items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"python -m benchmarks.{name:8} {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
