"""A strided convolution as a dense one: faster gradients of images on CPUs."""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

# Where the dense form was measured to be faster: for alex (11x11, stride 4: forward and backward
# together 0.3 to 0.6 of the time), not for squeeze (3x3, stride 2)
_FEW_CHANNELS, _LARGE_STRIDE = 4, 3


def gains_if_dense(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether `dense_convolution` takes this layer, and is faster with gradients."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels <= _FEW_CHANNELS
        and layer.stride[0] == layer.stride[1] >= _LARGE_STRIDE
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros"
    )


def dense_convolution(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Apply a strided convolution as one of stride 1 over blocks of pixels.

    Blocks of s by s pixels become channels (s is the stride), and a kernel of k by k becomes one of
    ceil(k / s) by ceil(k / s) over s * s times the channels, filled up with zeros. The sums are the
    same but for their order. The gradient with respect to the images, which oneDNN computes slowly
    for three channels and a stride, is then that of an ordinary convolution.
    """
    stride = layer.stride[0]
    out, channels, height, width = layer.weight.shape
    down, across = -(-height // stride), -(-width // stride)
    weight = functional.pad(layer.weight, (0, across * stride - width, 0, down * stride - height))
    weight = weight.view(out, channels, down, stride, across, stride).permute(0, 1, 3, 5, 2, 4)
    blocks = functional.pixel_unshuffle(_whole_windows(layer, images, (down, across)), stride)
    return functional.conv2d(
        blocks.contiguous(memory_format=torch.channels_last),
        weight.reshape(out, channels * stride**2, down, across),
        layer.bias,
    )


def _whole_windows(layer: nn.Conv2d, images: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Pad or crop images to what the windows cover, each `blocks` blocks of pixels high and wide.

    The last columns and lines of windows meet zeros of the kernel.
    """
    stride, edges = layer.stride[0], []
    for axis in (1, 0):
        side, padding, kernel = images.shape[2 + axis], int(layer.padding[axis]), layer.kernel_size
        windows = (side + 2 * padding - kernel[axis]) // stride + 1
        covered = (windows - 1 + blocks[axis]) * stride
        edges += [padding, covered - padding - side]
    return functional.pad(images, edges)
