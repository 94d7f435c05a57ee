"""ResNet-18 whose last stage keeps 14x14 places, as the question-answering networks take it.

He et al., CVPR 2016, by torchvision. In MUSIC-AVQA's released `visual_net.py` the fourth stage has stride 1
and no dilation, so a picture of 224 gives 512 maps of 14x14; the weights are those of ImageNet as they are.
The released extraction squeezes frames to a square and normalises by Kinetics' means; ours takes the centre
crop of the media shards and the normalisation that the weights were trained with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.public import load_exactly

SIZE, PLACES, DIM = 224, 196, 512  # pixels, places of a frame, width of a place


def import_resnet18(state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's ResNet-18 with its public weights, in evaluation mode, stage 4 at stride 1.

    Raises:
        ValueError: names missing, unknown or of another shape, listed.
    """
    from torchvision.models import resnet18

    net = resnet18()
    counters = {n: torch.tensor(0) for n in net.state_dict() if n.endswith("num_batches_tracked")}
    load_exactly(net, {**counters, **state}, "ResNet-18")  # the file of 2017 has no counters
    first = net.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    return net.eval().requires_grad_(False)


def maps(net: nn.Module, x: Tensor) -> Tensor:
    """Places row by row, [R, 196, 512], of normalised pictures [R, 3, 224, 224]."""
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        x = getattr(net, name)(x)
    return x.flatten(2).transpose(1, 2)
