"""Functions of tensors replayed as CUDA graphs: one launch in place of a hundred small ones, each of which costs more than its work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PLAIN_CALLS = 5
"""Calls before the capture, which costs as much as many: a viewer beside training makes fewer between two steps."""
_WARM_UP_CALLS = 3
"""On the stream of the capture: libraries set themselves up in them, which cannot be captured."""
_one_capture = threading.Lock()
"""Each waits for the whole device when it begins, and that must not be while another is going on."""


class Replay(threading.local):
    """A function of tensors that is captured into a CUDA graph at its sixth call and replayed from then on; plain on the CPU.

    The inputs' shapes never change, and all else that the function reads stays where it lies in memory; its values may
    change. It must not wait for the device. Each thread has a graph of its own, so that none writes into another's inputs.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self.function = function
        self._num_calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results, in tensors of their own."""
        if self._graph is None:
            self._num_calls += 1
            if self._num_calls <= PLAIN_CALLS or not inputs[0].is_cuda:
                return self.function(*inputs)
            self._capture(inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()  # type: ignore[union-attr]
        return tuple(output.clone() for output in self._outputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        # nerfstudio's viewer stops a render at any line, by a trace; a capture must come to its end.
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            with _one_capture:
                self._inputs = tuple(value.detach().clone() for value in inputs)
                stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(_WARM_UP_CALLS):
                        self.function(*self._inputs)
                # What other threads do on the device meanwhile is no error of this one's.
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = tuple(output.detach() for output in self.function(*self._inputs))
                self._graph = graph
        finally:
            sys.settrace(trace)


class ReplayedLoss:
    """A module's scalar, with its gradients by inputs and parameters from the same CUDA graph.

    A plain object, so that a model that has one does not own the module's parameters twice; they must be loaded in place.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._replay = Replay(self._value_and_gradients)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The scalar; it can be differentiated once."""
        return _WithKnownGradients.apply(self._replay, len(inputs), *inputs, *self._module.parameters())

    @torch.enable_grad()
    def _value_and_gradients(self, *inputs: Tensor) -> tuple[Tensor]:
        """In one row, so that one copy takes all of it out of the graph."""
        # Leaves of their own: the Parameters' may belong to the stream of a backward pass outside of the capture.
        leaves = [value.detach().requires_grad_() for value in inputs]
        parameters = {name: value.detach().requires_grad_() for name, value in self._module.named_parameters()}
        loss = torch.func.functional_call(self._module, parameters, tuple(leaves))
        gradients = torch.autograd.grad(loss, [*leaves, *parameters.values()])
        return (torch.cat([loss.detach()[None], *(gradient.flatten() for gradient in gradients)]),)


class _WithKnownGradients(torch.autograd.Function):
    """Takes the row apart: the scalar forward, the gradients backward."""

    @staticmethod
    def forward(ctx: Any, replay: Replay, num_inputs: int, *tensors: Tensor) -> Tensor:
        (row,) = replay(*tensors[:num_inputs])
        ctx.gradients, ctx.shapes = row[1:], [tensor.shape for tensor in tensors]
        return row[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = (grad * ctx.gradients).split([shape.numel() for shape in ctx.shapes])
        return None, None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True))
