"""Cells trained in this process by their command, and the weights that they leave."""

import torch
from safetensors.torch import load_file

from po import train


def run(folder):
    return train.main([str(folder)])


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def assert_equal_weights(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
