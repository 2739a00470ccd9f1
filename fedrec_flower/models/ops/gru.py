"""A gated recurrent unit over windows, with a backward pass written by hand.

Autograd would compute a small gradient of the weights at every position and add them up; here
one matrix product covers all positions.

Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8;
the reset gate acts on the mapped state, as in cuDNN and PyTorch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fedrec_flower.models.ops.row_products import spread

_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def gru_scan(inputs: Tensor, present: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Hidden states at each position of each window; differentiable, one call under `vmap`.

    Args:
        inputs: float32 (n, length, 3 * d): the input's part of update gate, reset gate and
            candidate, in this order.
        present: float32 (n, length): 1, or 0 for positions that leave the state unchanged; no
            gradient.
        weight: float32 (3 * d, d): from the previous state to the same three.
        bias: float32 (d,): of the candidate's part.

    Returns:
        float32 (n, length, d).
    """
    states: Tensor = _GruScan.apply(inputs, present, weight, bias)[0]  # type: ignore[no-untyped-call]  # PyTorch has none
    return states


class _GruScan(Function):
    """Autograd function of `gru_scan`; all tensors may have a leading axis of clients.

    With h the previous state, a position computes
    u = sigmoid(x_u + W_u h), r = sigmoid(x_r + W_r h), m = W_c h + b, c = tanh(x_c + r * m),
    and the new state h + present * u * (c - h).
    """

    @staticmethod
    def forward(
        inputs: Tensor, present: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, ...]:
        dim = weight.shape[-1]
        # Positions first. `activations` (length, ..., n, 3 d) starts as the inputs and becomes the
        # gates u, r and the candidate c in place; `update`, `reset` and `candidate` are views.
        activations = inputs.movedim(-2, 0).clone(memory_format=torch.contiguous_format)
        update, reset, candidate = torch.split(activations, dim, -1)
        gates = activations[..., : 2 * dim]
        is_present = present.movedim(-1, 0)[..., None]
        transposed, row_bias = weight.transpose(-1, -2), bias[..., None, :]
        mapped = torch.empty_like(candidate, memory_format=torch.contiguous_format)
        states = activations.new_zeros(len(activations) + 1, *mapped.shape[1:])
        for position in range(len(activations)):
            from_state = states[position] @ transposed
            gates[position].add_(from_state[..., : 2 * dim]).sigmoid_()
            torch.add(from_state[..., 2 * dim :], row_bias, out=mapped[position])
            candidate[position].addcmul_(reset[position], mapped[position]).tanh_()
            step = update[position] * is_present[position]
            torch.lerp(states[position], candidate[position], step, out=states[position + 1])
        return states[1:].movedim(0, -2), activations, mapped, states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:3], *output[1:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
        del unused
        present, weight, activations, mapped, states = ctx.saved_tensors
        is_present, slopes = present.movedim(-1, 0)[..., None], slope.movedim(-2, 0)
        dim = weight.shape[-1]
        update, reset, candidate = torch.split(activations, dim, -1)
        # Gradients of the arguments of u and r, of m, and of the argument of c, side by side.
        gradients = activations.new_empty(*activations.shape[:-1], 4 * dim)
        update_slope, reset_slope, mapped_slope, candidate_slope = torch.split(gradients, dim, -1)
        carried = torch.zeros_like(states[0])  # gradient of a state through all later positions
        for position in reversed(range(len(activations))):
            before, state_slope = states[position], carried.add_(slopes[position])
            step = update[position] * is_present[position]
            gate_slope = (candidate[position] - before).mul_(state_slope).mul_(is_present[position])
            _sigmoid_backward(gate_slope, update[position], grad_input=update_slope[position])
            _tanh_backward(
                state_slope * step, candidate[position], grad_input=candidate_slope[position]
            )
            product_slope = candidate_slope[position] * mapped[position]
            _sigmoid_backward(product_slope, reset[position], grad_input=reset_slope[position])
            torch.mul(candidate_slope[position], reset[position], out=mapped_slope[position])
            carried = state_slope.sub_(step.mul_(state_slope))
            carried += gradients[position, ..., : 3 * dim] @ weight
        flat_slopes, flat_states = _flat(gradients[..., : 3 * dim]), _flat(states[:-1])
        weight_slope = flat_slopes.transpose(-1, -2) @ flat_states
        bias_slope = flat_slopes[..., 2 * dim :].sum(-2)
        input_slope = torch.cat([gradients[..., : 2 * dim], candidate_slope], -1).movedim(0, -2)
        return input_slope, None, weight_slope, bias_slope

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        pairs = zip(inputs, dims, strict=True)
        tensors = [spread(tensor, dim, info.batch_size) for tensor, dim in pairs]
        states, *saved = _GruScan.apply(*tensors)  # type: ignore[no-untyped-call]  # PyTorch has none
        return (states, *saved), (0, 1, 1, 1)


def _flat(rows: Tensor) -> Tensor:
    """(length, ..., n, d) as (..., length * n, d)."""
    return rows.movedim(0, -3).flatten(-3, -2)
