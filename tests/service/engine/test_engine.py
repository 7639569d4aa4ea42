"""The engine can be read by other threads while the compute thread changes it."""


def test_a_series_created_while_the_names_are_sorted_is_listed_next_time(start_host):
    """The sorted names are not cached if a series was created in the meantime."""
    host = start_host()
    host.states()

    class Rows(dict):
        """A mapping that creates a series as soon as it is copied."""

        def copy(self):
            rows = super().copy()
            if "new" not in self:
                host.observe("new", "2019-01-01", 5.0)
            return rows

    host.observe("before", "2019-01-01", 5.0)
    host.engine.rows = Rows(host.engine.rows)

    assert "new" not in host.engine.names()
    assert "new" in host.engine.names()
