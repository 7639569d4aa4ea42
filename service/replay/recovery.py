"""From what is on the disk to live states: snapshots first, then what the log has had since."""

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
    Put the states of the snapshots in place, brought to where the log is.

    Series that are in the log and not in the snapshots wait in `writer.waiting` to be replayed.

    Returns:
        How many series came from the snapshots.
    """
    engine = writer.engine
    with writer.log.read() as transaction:
        names = transaction.names()
        now, engine.timeline = transaction.before, transaction.timeline
        shortened = transaction.shortened(engine.digest)
    if shortened:
        logger.warning(
            "%s: %d series were pruned before the model %s came: a replay of them begins where "
            "their log begins now",
            writer.log.place,
            shortened,
            engine.digest[:12],
        )
    engine.executor.run(lambda: engine.make_room(len(names)), patient=True)
    since, blocks = snapshots.load(engine)
    for place, block in blocks.items():
        kept = _of(block, names)
        named = [names[number] for number in kept.numbers.tolist()]
        engine.executor.run(partial(engine.adopt_block, place, kept, named), patient=True)
    restored = len(engine)
    writer.waiting = {name: n for n, name in names.items() if name not in engine.rows}
    engine.batch = since if blocks else now
    writer.catch_up()
    return restored


def _of(block: Block, names: Mapping[int, str]) -> Block:
    """Without the series that the log no longer has."""
    there = np.array([number in names for number in block.numbers.tolist()], bool)
    if there.all():
        return block
    return Block(
        block.batch,
        block.numbers[there],
        block.first_ds[there],
        block.rebuilt[there],
        block.states.take(np.flatnonzero(there)),
    )
