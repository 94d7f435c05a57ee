"""A few clips with every method's answer."""
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Block


def clip_blocks(found: Evaluation, count: int) -> tuple[Block, ...]:
    return ()
