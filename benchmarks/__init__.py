"""
Benchmarks: a module for each question, which prints its results as JSON lines.

`python -m benchmarks` lists them. Nothing in `forecast`, `service` or `pipelines` imports this
package; tests may.
"""
