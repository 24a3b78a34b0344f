"""The ONNX backend interface (onnx.backend.base) over frugal: what the ONNX conformance tests drive.

import frugal.backend as backend
outputs = backend.prepare(model).run([x, y])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

from .errors import UnsupportedOperator
from .session import InferenceSession

__all__ = ["FrugalBackend", "FrugalRep", "is_compatible", "prepare", "run_model", "supports_device"]


class FrugalRep(BackendRep):
    """A compiled model; `run` takes the inputs in the order of the graph, as a list or by name."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        names = [i.name for i in self.session.get_inputs()]
        feeds = dict(inputs) if isinstance(inputs, dict) else dict(zip(names, _listed(inputs), strict=True))
        return tuple(self.session.run(None, feeds))


def _listed(inputs: Any) -> Sequence[Any]:
    return [inputs] if isinstance(inputs, np.ndarray) else list(inputs)


class FrugalBackend(Backend):
    """Everything runs on the CPU, in float activations, so that results compare with a float reference."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        from .compiler import lower_model

        try:
            lower_model(model)
        except UnsupportedOperator:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> FrugalRep:
        from .compiler import compile_model

        return FrugalRep(InferenceSession(compile_model(model, activations="float")))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0].upper() == "CPU"


is_compatible = FrugalBackend.is_compatible
prepare = FrugalBackend.prepare
run_model = FrugalBackend.run_model
supports_device = FrugalBackend.supports_device
