"""The live states in memory, asked from other threads than the one they live on."""


def test_a_series_that_begins_while_names_are_put_in_order_is_there_the_next_time(start_host):
    """What was sorted before it came is not kept."""
    host = start_host()
    host.states()

    class Rows(dict):
        """Has a series begin as soon as somebody copies the names."""

        def copy(self):
            made = super().copy()
            if "new" not in self:
                host.observe("new", "2019-01-01", 5.0)
            return made

    host.observe("before", "2019-01-01", 5.0)
    host.engine.rows = Rows(host.engine.rows)

    assert "new" not in host.engine.names()
    assert "new" in host.engine.names()
