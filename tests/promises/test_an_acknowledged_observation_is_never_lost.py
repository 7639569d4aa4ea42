"""
Promise 10: a server is killed with SIGKILL while clients report observations and ask for forecasts.

Every acknowledged observation is stored exactly once, and the states equal a replay of the log,
whether they were restored from snapshots or not.
"""

import random
import shutil

import httpx

from benchmarks.speed.clients import Verdict, body_of, compare_states, read_stored
from benchmarks.speed.killloop import KINDS, Loop
from benchmarks.speed.servers import POINTS, server

KILLS_OF_EACH = 3


def test_sigkill_loses_no_acknowledged_observation_and_doubles_none(daily_models, tmp_path):
    """The kills come around commits, snapshots and swaps, during starts, and at random moments."""
    rng = random.Random(1)
    kinds = [*KINDS] * KILLS_OF_EACH
    rng.shuffle(kinds)
    loop = Loop(tmp_path, daily_models, rng)

    verdict = sum((loop.kill(kind) for kind in kinds), Verdict())

    assert (verdict.lost, verdict.doubled, verdict.torn) == (0, 0, 0)
    assert verdict.state_error <= 1e-5
    assert verdict.kills == len(kinds)
    assert verdict.at_points >= len(POINTS) * (KILLS_OF_EACH - 1)
    with server(loop.environment()) as running:
        for reporter in loop.reporters:
            with httpx.Client(base_url=running.url, timeout=60) as client:
                # The log may hold the batch whose answer the last kill cut off. Sent again, it is
                # acknowledged, and a correction in it is then the latest value of its stamp.
                if reporter.pending:
                    assert reporter.send(client).status_code == 200
                latest = {stamp: sent[-1] for stamp, sent in reporter.acknowledged.items()}
                resent = client.post("/v1/observations", json=body_of(latest)).json()
            assert (resent["new"], resent["duplicate"]) == (0, len(latest))
    shutil.rmtree(tmp_path / "snapshots")
    with server(loop.environment()) as running:
        replayed = compare_states(running.url, loop.bundles, read_stored(loop.url))
    assert (replayed.lost, replayed.doubled) == (0, 0)
    assert replayed.state_error <= 1e-5
