"""Runs code blocks of the README and the documentation as tests; loads shared fixtures."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"]
).pytest()

pytest_plugins = ["tests.fixtures.pipelines", "tests.fixtures.service"]
