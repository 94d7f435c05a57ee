"""Where training is: a place between two batches that holds under any number of ranks and loader processes.

All ranks together take one global sequence of samples, a seeded shuffle per epoch, a batch at a time; what a
sample becomes depends on (seed, epoch, key) alone. So the epoch and the samples taken of it say everything, of a
stream too: which shards are over, and which samples of the others, follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from models.batch import AVBatch
from trainers.data import Items, batches, subset_size, training_order


@dataclass(frozen=True)
class Position:
    """Epochs that are over, and samples of the current one that all ranks together have taken."""

    epoch: int = 0
    taken: int = 0

    def state(self) -> dict[str, int]:
        """Plain values for a checkpoint; ``Position(**state)`` is the same place."""
        return asdict(self)


def epoch_batches(
    items: Items,
    position: Position,
    *,
    seed: int,
    batch_size: int,
    loaders: int = 0,
    proportion: float = 1.0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[AVBatch, Position]]:
    """One rank's batches from a position to the epoch's end, each with the position after it.

    Every rank gets as many batches, all of the same size: a rest is left out, unless it is all there is. The
    batches of the ranks, taken together, are the same for every `world` that divides `batch_size`.

    Args:
        items: their `epoch` is set.
        batch_size: over all ranks.
        loaders: loader processes.
    """
    whole = max(1, batch_size // world) * world
    end = last_taken(len(items), proportion, whole, position.taken)
    items.epoch = position.epoch
    order = training_order(items, seed, position.epoch, proportion, rank, world, position.taken)
    order = order[: -(-(end - position.taken) // world)]
    taken = position.taken
    for batch in batches(items, order, whole // world, loaders, drop_last=False):
        taken = min(taken + whole, end)
        yield batch, Position(position.epoch + 1) if taken == end else Position(position.epoch, taken)


def last_taken(size: int, proportion: float, whole: int, taken: int = 0) -> int:
    """Samples taken when an epoch over `size` samples is over: full batches of `whole` from `taken` on."""
    used = subset_size(size, proportion)
    full = (used - taken) // whole * whole
    return taken + full if full or taken else used
