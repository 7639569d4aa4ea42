"""
Calendars: from a frequency such as `B` or `MS` to timestamps, step numbers and season lengths.

May be imported by everything in `forecast` but `config`, `errors`, `files` and `device`.
"""
