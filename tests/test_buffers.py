"""Memory of batches: used again, and never while anything still looks at it."""

from __future__ import annotations

import pickle

import pytest
import torch

from trainers.avqa.buffers import KEPT, Buffers

pytestmark = pytest.mark.unit


def test_memory_is_used_again_once_nothing_looks_at_it():
    buffers = Buffers()
    first = buffers.empty(2, 3)
    assert (first.shape, first.dtype) == ((2, 3), torch.float16)
    at = first.data_ptr()
    assert buffers.empty(2, 3).data_ptr() != at, "in use"
    del first
    assert buffers.empty(2, 3).data_ptr() == at
    assert buffers.empty(3, 2).data_ptr() != at, "of another shape"


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[1],
        lambda x: x.detach().flatten(),
        lambda x: x.numpy()[:1],
        lambda x: x.untyped_storage(),
        lambda x: (x.requires_grad_() * x).grad_fn,
    ],
    ids=["row", "reshaped", "numpy", "storage", "autograd"],
)
def test_memory_is_not_used_again_while_something_looks_at_it(look):
    buffers = Buffers()
    at = (x := buffers.empty(2, 3).zero_()).data_ptr()
    held = look(x)
    del x
    assert buffers.empty(2, 3).data_ptr() != at
    del held
    assert at in {x.data_ptr() for x in [buffers.empty(2, 3) for _ in range(KEPT)]}


def test_who_keeps_all_batches_gets_fresh_memory():
    buffers = Buffers()
    held = [buffers.empty(4).fill_(i) for i in range(3 * KEPT)]
    assert [float(x[0]) for x in held] == list(range(3 * KEPT))
    assert len(buffers._arrays[4,]) == KEPT
    assert not pickle.loads(pickle.dumps(buffers))._arrays
