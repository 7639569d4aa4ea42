"""
A real server process, killed without warning while clients report and ask for forecasts.

What was acknowledged is there exactly once, and the states equal a replay of the log, whether they
were restored from snapshots or not.
"""

import random
import shutil

import httpx

from benchmarks.speed.clients import Verdict, body_of, compare_states, stored_in
from benchmarks.speed.killloop import KINDS, Loop
from benchmarks.speed.servers import POINTS, server

KILLS_OF_EACH = 3


def test_kill_9_loses_nothing_acknowledged_and_counts_nothing_twice(daily_models, tmp_path):
    """Before and after a commit, in a snapshot, in a swap, in a start, at any moment."""
    rng = random.Random(1)
    kinds = [*KINDS] * KILLS_OF_EACH
    rng.shuffle(kinds)
    loop = Loop(tmp_path, daily_models, rng)

    found = sum((loop.kill(kind) for kind in kinds), Verdict())

    assert (found.lost, found.doubled, found.torn) == (0, 0, 0)
    assert found.state_error <= 1e-5
    assert found.kills == len(kinds)
    assert found.at_points >= len(POINTS) * (KILLS_OF_EACH - 1)
    with server(loop.environment()) as running:
        for reporter in loop.reporters:
            with httpx.Client(base_url=running.url, timeout=60) as client:
                # The log may hold the batch whose answer the last kill cut off. Sent again, it is
                # acknowledged, and a correction in it is then the latest value of its stamp.
                if reporter.pending:
                    assert reporter.send(client).status_code == 200
                latest = {stamp: sent[-1] for stamp, sent in reporter.acknowledged.items()}
                again = client.post("/v1/observations", json=body_of(latest)).json()
            assert (again["new"], again["duplicate"]) == (0, len(latest))
    shutil.rmtree(tmp_path / "snapshots")
    with server(loop.environment()) as running:
        replayed = compare_states(running.url, loop.bundles, stored_in(loop.url))
    assert (replayed.lost, replayed.doubled) == (0, 0)
    assert replayed.state_error <= 1e-5
