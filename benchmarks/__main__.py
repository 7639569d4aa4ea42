"""What there is to run: `python -m benchmarks`."""

import ast
from pathlib import Path

HELPERS = {"__init__", "__main__", "records"}


def main() -> None:
    """List the benchmarks with the first line of what they say of themselves."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in HELPERS:
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            print(f"python -m benchmarks.{path.stem:8} {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
