"""Tell whether torch computes numbers now, or only records what would be computed."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def computes_now(*tensors: Tensor) -> bool:
    """Return whether values of these tensors may be looked at, as far as torch's mode decides.

    False under `torch.compile`, `torch.export` and `torch.jit.trace`, inside the transforms of
    `torch.func` (vmap, grad, jvp), for dual numbers of forward-mode differentiation, and for
    subclasses of Tensor (fake and distributed tensors).
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    return all(_is_plain(tensor) for tensor in tensors)


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and forward_ad.unpack_dual(tensor).tangent is None  # type: ignore[no-untyped-call]
    )
