"""Restores live states at a start: from snapshots, then from the log since then."""

import logging
from collections.abc import Mapping
from functools import partial

import numpy as np

from service.engine.engine import Block
from service.engine.snapshots import Snapshots
from service.ingest.writer import Writer

logger = logging.getLogger("service.recovery")


def recover(writer: Writer, snapshots: Snapshots) -> int:
    """
    Restore the states of snapshots and bring them up to date with the log.

    Series of the log that have no snapshot are put into `writer.waiting` for a replay.

    Returns:
        The number of series restored from snapshots.
    """
    engine = writer.engine
    with writer.log.read() as transaction:
        names = transaction.names()
        now, engine.timeline = transaction.before, transaction.timeline
        shortened = transaction.shortened(engine.digest)
    if shortened:
        logger.warning(
            "%s: %d series were pruned before model %s was loaded: their replay starts where "
            "their log begins now",
            writer.log.place,
            shortened,
            engine.digest[:12],
        )
    engine.executor.run(lambda: engine.make_room(len(names)), patient=True)
    since, blocks = snapshots.load(engine)
    for place, block in blocks.items():
        present = _without_removed(block, names)
        block_names = [names[number] for number in present.numbers.tolist()]
        engine.executor.run(partial(engine.adopt_block, place, present, block_names), patient=True)
    restored = len(engine)
    writer.waiting = {name: n for n, name in names.items() if name not in engine.rows}
    engine.batch = since if blocks else now
    writer.catch_up()
    return restored


def _without_removed(block: Block, names: Mapping[int, str]) -> Block:
    """Return the block without the series that the log no longer has."""
    present = np.array([number in names for number in block.numbers.tolist()], bool)
    if present.all():
        return block
    return Block(
        block.batch,
        block.numbers[present],
        block.first_ds[present],
        block.rebuilt[present],
        block.states.take(np.flatnonzero(present)),
    )
