"""A gated recurrent unit over windows, differentiated by hand.

Autograd would take a gradient of the weights at every place, of a few windows each, and add them
up; here all places' are one product of matrices.

Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8;
the candidate resets what the state is mapped to, as in cuDNN and PyTorch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fedrec_flower.models.ops.row_products import spread

_tanh_slope = torch.ops.aten.tanh_backward.grad_input
_sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input


def gru_scan(inputs: Tensor, present: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """States after each place of each window; differentiable, many clients' are one under `vmap`.

    Args:
        inputs: float32 (n, length, 3 * d): what each place adds to update gate, reset gate and
            candidate.
        present: float32 (n, length): 1, or 0 for what leaves the state as it was; no gradient.
        weight: float32 (3 * d, d): from the state before to the same three.
        bias: float32 (d,): of the last of them.

    Returns:
        float32 (n, length, d).
    """
    states: Tensor = _GruScan.apply(inputs, present, weight, bias)[0]  # type: ignore[no-untyped-call]  # PyTorch has none
    return states


class _GruScan(Function):
    """See `gru_scan`; in front of all axes clients may have one."""

    @staticmethod
    def forward(
        inputs: Tensor, present: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, ...]:
        # Places in front: update and reset gate, candidate; what the state was mapped to.
        inner = inputs.movedim(-2, 0).clone(memory_format=torch.contiguous_format)
        here = present.movedim(-1, 0)[..., None]
        dim, back, shift = weight.shape[-1], weight.transpose(-1, -2), bias[..., None, :]
        gates, (update, reset, candidate) = inner[..., : 2 * dim], torch.split(inner, dim, -1)
        mapped = torch.empty_like(candidate, memory_format=torch.contiguous_format)
        states = inner.new_zeros(len(inner) + 1, *mapped.shape[1:])
        for place in range(len(inner)):
            of_state = states[place] @ back
            gates[place].add_(of_state[..., : 2 * dim]).sigmoid_()
            torch.add(of_state[..., 2 * dim :], shift, out=mapped[place])
            candidate[place].addcmul_(reset[place], mapped[place]).tanh_()
            share = update[place] * here[place]
            torch.lerp(states[place], candidate[place], share, out=states[place + 1])
        return states[1:].movedim(0, -2), inner, mapped, states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:3], *output[1:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *rest: None) -> tuple[Tensor | None, ...]:
        del rest
        present, weight, inner, mapped, states = ctx.saved_tensors
        here, slopes = present.movedim(-1, 0)[..., None], slope.movedim(-2, 0)
        dim = weight.shape[-1]
        update, reset, candidate = torch.split(inner, dim, -1)
        # Of update and reset gate, of what the state was mapped to, of the candidate.
        every = inner.new_empty(*inner.shape[:-1], 4 * dim)
        to_update, to_reset, to_mapped, to_candidate = torch.split(every, dim, -1)
        carried = torch.zeros_like(states[0])
        for place in reversed(range(len(inner))):
            before, to_state = states[place], carried.add_(slopes[place])
            share = update[place] * here[place]
            to_share = (candidate[place] - before).mul_(to_state).mul_(here[place])
            _sigmoid_slope(to_share, update[place], grad_input=to_update[place])
            _tanh_slope(to_state * share, candidate[place], grad_input=to_candidate[place])
            to_gated = to_candidate[place] * mapped[place]
            _sigmoid_slope(to_gated, reset[place], grad_input=to_reset[place])
            torch.mul(to_candidate[place], reset[place], out=to_mapped[place])
            carried = to_state.sub_(share.mul_(to_state))
            carried += every[place, ..., : 3 * dim] @ weight
        flat, read = _flat(every[..., : 3 * dim]), _flat(states[:-1])
        to_weight, to_bias = flat.transpose(-1, -2) @ read, flat[..., 2 * dim :].sum(-2)
        to_inputs = torch.cat([every[..., : 2 * dim], to_candidate], -1).movedim(0, -2)
        return to_inputs, None, to_weight, to_bias

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        pairs = zip(inputs, dims, strict=True)
        each = [spread(tensor, dim, info.batch_size) for tensor, dim in pairs]
        states, *rest = _GruScan.apply(*each)  # type: ignore[no-untyped-call]  # PyTorch has none
        return (states, *rest), (0, 1, 1, 1)


def _flat(rows: Tensor) -> Tensor:
    """(length, ..., n, d) as (..., length * n, d)."""
    return rows.movedim(0, -3).flatten(-3, -2)
