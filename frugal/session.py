"""InferenceSession with the names and habits of onnxruntime's, so that changing the import is the whole migration.

What is not imitated: io bindings, OrtValues, custom operators, execution providers (there is one).  docs/decisions.md
says where the two differ on purpose.
"""

from __future__ import annotations

import enum
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .bindings import library
from .bindings.plan import DTYPES, Tensor
from .bindings.session import Session
from .errors import FrugalError, InvalidArgument
from .plan import Plan, has_magic, is_plan

if TYPE_CHECKING:  # imported by run(), not by run_buffers()
    import numpy as np
    import numpy.typing as npt

PROVIDERS = ["FrugalExecutionProvider", "CPUExecutionProvider"]


class GraphOptimizationLevel(enum.IntEnum):
    """As onnxruntime's; frugal always compiles the same way."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """As onnxruntime's; frugal runs the steps one after another, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class _ConfigEntries:
    """String keys and values, as onnxruntime keeps them; unknown ones are kept and ignored."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = {}

    def _add(self, key: str, value: str) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"config entries are strings, got {key!r}: {value!r}")
        self._entries[key] = value

    def _get(self, key: str) -> str:
        if key not in self._entries:
            raise RuntimeError(f"{type(self).__name__} does not have configuration with key: {key}")
        return self._entries[key]


class SessionOptions(_ConfigEntries):
    """Options of a session.  frugal acts on intra_op_num_threads (0: one a usable CPU) and on these config entries:

    frugal.activations          "int8" (default), "int8-token", "int8-block" or "float": how quantized layers take their
                                activations (frugal.compiler.compile_to); only when an .onnx is compiled
    frugal.memory_limit_bytes   the most bytes the arena and the outputs of a run may take; default
                                256 MiB + 32 x bytes of the plan + 64 KiB x bytes of the inputs

    The other attributes are onnxruntime's, kept and ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.intra_op_num_threads = 0
        self.inter_op_num_threads = 0
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        self.execution_order = 0
        self.enable_cpu_mem_arena = True
        self.enable_mem_pattern = True
        self.enable_mem_reuse = True
        self.enable_profiling = False
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self.optimized_model_filepath = ""
        self.profile_file_prefix = "onnxruntime_profile_"
        self.use_deterministic_compute = False
        self.use_per_session_threads = True

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set a config entry."""
        self._add(key, value)

    def get_session_config_entry(self, key: str) -> str:
        """The value of a config entry; RuntimeError when it was not set."""
        return self._get(key)

    def memory_limit(self) -> int | None:
        """The value of frugal.memory_limit_bytes.  Raises InvalidArgument unless it is a positive integer."""
        text = self._entries.get("frugal.memory_limit_bytes")
        if text is None:
            return None
        if not text.strip().isdecimal() or not 0 < int(text) < 1 << 63:
            raise InvalidArgument(f"frugal.memory_limit_bytes must be a positive number of bytes, got {text!r}")
        return int(text)

    def activations(self) -> str:
        """The value of frugal.activations; the compiler checks it."""
        return self._entries.get("frugal.activations", "int8")


class RunOptions(_ConfigEntries):
    """Accepted by run() and ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self.only_execute_path_to_fetches = False
        self.terminate = False

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set a config entry."""
        self._add(key, value)

    def get_run_config_entry(self, key: str) -> str:
        """The value of a config entry; RuntimeError when it was not set."""
        return self._get(key)


class NodeArg(NamedTuple):
    """A model input or output.  shape: ints, symbols' names, None for nameless ones; type: such as "tensor(int64)"."""

    name: str
    shape: list[int | str | None]
    type: str

    @classmethod
    def of(cls, tensor: Tensor) -> NodeArg:
        """Describe a tensor of a plan."""
        return cls(tensor.name, list(tensor.shape), DTYPES[tensor.dtype][1])


class ModelMetadata(NamedTuple):
    """What the model says of itself."""

    producer_name: str
    graph_name: str
    custom_metadata_map: dict[str, str]
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0


class InferenceSession:
    """Runs a model: a .frugal plan (mapped, nothing is copied) or an .onnx (compiled, and kept in the cache).

    path_or_bytes: a path, the bytes of either kind of file, or a frugal.Plan.  providers and provider_options are
    accepted and ignored; so are further keywords, as onnxruntime does.  Raises NoSuchFile, InvalidModel,
    UnsupportedOperator, InvalidPlan, MissingExtra (an .onnx without the extra `onnx`), InvalidArgument, NotAvailable
    (FRUGAL_ISA).

    Sessions may be shared between threads: concurrent runs are done one after another.  The results depend on the plan
    and the inputs alone: not on the CPU, the number of threads or the batch.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | bytearray | memoryview | Plan,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if sess_options is not None and not isinstance(sess_options, SessionOptions):
            raise TypeError(f"sess_options must be a frugal.SessionOptions, got {type(sess_options).__name__}")
        self._options = sess_options or SessionOptions()
        _warn_unknown(providers)
        self.plan, self.loaded_from = _open(path_or_bytes, self._options)
        pool = library.Pool(max(int(self._options.intra_op_num_threads), 0))
        self._session = Session(self.plan.buffer, pool, self._options.memory_limit())
        self._inputs = [NodeArg.of(t) for t in self.plan.inputs]
        self._outputs = [NodeArg.of(t) for t in self.plan.outputs]
        self._input_names = [t.name for t in self._inputs]
        self._output_index = {t.name: i for i, t in enumerate(self._outputs)}

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
    ) -> list[npt.NDArray[Any]]:
        """Compute the named outputs (None or []: all) for a dict of inputs.

        Arrays must have the exact dtype; any strides and byte order will do.  Lists and numbers are converted, as
        onnxruntime does.  Raises InvalidArgument (a ValueError) for a missing or unknown name, a wrong rank, dtype or
        dim, a value out of range (such as a token id); OutOfMemory above the session's limit.
        """
        arrays = self._arrays(input_feed)
        if not output_names:
            return self._session.run(arrays)
        return self._named(self._session, arrays, output_names)

    def run_buffers(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[memoryview]:
        """`run` for programs that do without numpy, whose import takes longer than opening and running a small plan.

        Inputs are objects with the buffer protocol of exactly the element type (array.array, memoryview, an array of any
        library), or nested lists of numbers; outputs are memoryviews of the output's shape and struct code (float16 as its bits,
        "H"; a scalar or an empty output has one dimension).  Raises as run().
        """
        values = self._values(input_feed)
        if not output_names:
            return self._session.run_buffers(values)
        wanted = self._wanted(output_names)
        results = dict(zip(wanted, self._session.run_buffers(values, wanted), strict=True))
        return [results[self._output_index[name]] for name in output_names]

    def _values(self, feed: Mapping[str, Any]) -> list[Any]:
        if len(feed) != len(self._input_names):
            self._check_names(feed)
        try:
            return [feed[name] for name in self._input_names]
        except KeyError:
            self._check_names(feed)
            raise

    def _arrays(self, feed: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        import numpy as np

        arrays = self._values(feed)
        for i, value in enumerate(arrays):
            if type(value) is not np.ndarray:
                arrays[i] = _array(self._input_names[i], value, self._session.input_dtypes[i])
        return arrays

    def _check_names(self, feed: Mapping[str, Any]) -> None:
        missing = [name for name in self._input_names if name not in feed]
        if missing:
            raise InvalidArgument(f"Required inputs ({missing}) are missing from input feed ({list(feed)}).")
        unknown = [name for name in feed if name not in self._input_names]
        if unknown:
            raise InvalidArgument(f"Invalid input name: {unknown[0]} (the inputs are {self._input_names})")

    def _wanted(self, output_names: Sequence[str]) -> list[int]:
        """Indices of outputs by name, each once, ascending."""
        if isinstance(output_names, str):
            raise TypeError(f"output_names must be a sequence of names, got the string {output_names!r}")
        for name in output_names:
            if name not in self._output_index:
                raise InvalidArgument(f"Invalid output name: {name} (the outputs are {list(self._output_index)})")
        return sorted({self._output_index[name] for name in output_names})

    def _named(self, session: Session, arrays: list[npt.NDArray[Any]], output_names: Sequence[str]) -> list[npt.NDArray[Any]]:
        wanted = self._wanted(output_names)
        results = dict(zip(wanted, session.run(arrays, wanted), strict=True))
        return [results[self._output_index[name]] for name in output_names]

    def get_inputs(self) -> list[NodeArg]:
        """The inputs: name, shape, type."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs: name, shape, type."""
        return list(self._outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: constants are compiled in."""
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """Producer, name and custom properties of the model."""
        meta = self.plan.meta
        custom = meta.get("metadata", {})
        return ModelMetadata(
            producer_name=str(meta.get("model_producer", "")),
            graph_name=str(meta.get("source", "")),
            custom_metadata_map={str(k): str(v) for k, v in custom.items()} if isinstance(custom, dict) else {},
        )

    def get_session_options(self) -> SessionOptions:
        """The options this session was made with."""
        return self._options

    def get_providers(self) -> list[str]:
        """One provider; "CPUExecutionProvider" follows for scripts that look for it."""
        return list(PROVIDERS)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """None are known."""
        return {name: {} for name in PROVIDERS}

    def set_providers(self, providers: Sequence[Any] | None = None, provider_options: Any = None) -> None:
        """Accepted and ignored."""
        _warn_unknown(providers)

    def disable_fallback(self) -> None:
        """Accepted and ignored: there is nothing to fall back to."""

    def enable_fallback(self) -> None:
        """Accepted and ignored."""

    def io_binding(self) -> Any:
        """Not supported."""
        raise FrugalError("io bindings are not supported: inputs and outputs are already in CPU memory, use run()")

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Not supported."""
        self.io_binding()

    def run_with_ort_values(self, output_names: Any, input_dict_ort_values: Any, run_options: Any = None) -> None:
        """Not supported."""
        raise FrugalError("OrtValues are not supported: give numpy arrays to run()")

    def step_records(self, input_feed: Mapping[str, Any], runs: int = 1) -> list[list[tuple[int, int, int, int]]]:
        """Of each of `runs` runs, (nanoseconds, bytes read, bytes written, operations) of every step of the plan.

        Bytes are those of the operands; a multiply-add counts two operations.  Raises as run().
        """
        arrays = self._arrays(input_feed)
        return [self._session.records(arrays) for _ in range(runs)]

    def repeat_step(self, step: int, times: int) -> None:
        """From now on a run does this step of the plan `times` times in place of once (-1: none); the results stay the same.

        For measuring one step alone; a set_isa ends it.
        """
        self._session.repeat(step, times)

    def end_profiling(self) -> str:
        """Not supported."""
        raise FrugalError("profiling through onnxruntime's interface is not supported: use `frugal bench`")


def get_available_providers() -> list[str]:
    """Names that get_providers() of any session gives."""
    return list(PROVIDERS)


def get_device() -> str:
    """ "CPU"."""
    return "CPU"


def _warn_unknown(providers: Sequence[Any] | None) -> None:
    """Any provider is accepted, as onnxruntime falls back to its CPU; asking for none that is here deserves a word."""
    names = [p[0] if isinstance(p, tuple | list) else p for p in providers or []]
    if names and not any(name in PROVIDERS for name in names):
        warnings.warn(f"frugal runs on the CPU only; asked for {', '.join(map(str, names))}", stacklevel=3)


def _open(model: Any, options: SessionOptions) -> tuple[Plan, str]:
    """(plan, where it came from: "plan", "cache" or "compiled")."""
    if isinstance(model, Plan):
        return model, "plan"
    if isinstance(model, bytes | bytearray | memoryview):
        if is_plan(bytes(model[:8])):
            return Plan(model), "plan"
        model = bytes(model)
    elif not isinstance(model, str | os.PathLike):
        raise TypeError(f"Unable to load from type {type(model)!r}: give a path or bytes")
    elif has_magic(model) or os.fspath(model).endswith(".frugal"):
        return Plan.open(model), "plan"
    from .cache import compiled

    return compiled(model, activations=options.activations())


def _array(name: str, value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """value as an array: lists become `dtype` where their values fit, what has a dtype of its own keeps it."""
    if value is None:
        raise InvalidArgument(f"input {name!r}: want {dtype}, got None")
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError as e:  # a ragged list
        raise InvalidArgument(f"input {name!r}: not an array: {e}") from e
    if isinstance(value, list | tuple | int | float) and _fits(array, dtype):
        return array.astype(dtype, copy=False)
    return array


def _fits(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether a list's values may become `dtype`: no fraction is lost, no integer wraps; an empty list always may."""
    if not array.size:
        return True
    if array.dtype.kind not in {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}.get(dtype.kind, ""):
        return False
    if dtype.kind in "iu":
        import numpy as np

        return bool(np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max)
    return True


if sys.byteorder != "little":  # the plan is little-endian and its constants are read as they are
    raise ImportError("frugal runs on little-endian machines only")
