"""Write .tflite files through the schema that ai-edge-litert ships: no TensorFlow and no converter.

Tensors are numbered as they are made; equal constants share one buffer, so that the same weights in sixteen steps are stored
once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

OP = schema.BuiltinOperator
TYPES = {
    "<f4": schema.TensorType.FLOAT32, "<i4": schema.TensorType.INT32, "|i1": schema.TensorType.INT8,
}  # fmt: skip
VERSIONS_8 = {"CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2, "SLICE": 2}
"""Versions of the operators that take int8; all others are of version 1."""
MOVERS = ("CONCATENATION", "RESHAPE", "SLICE")
"""Operators that leave numbers as they are: what comes out has the type and the scale of what goes in."""
Scale = tuple[float, int]
"""Of a tensor in int8: it stands for scale * (number - zero point)."""
_IDENTIFIER = b"TFL3"
_VERSION = 3
_BYTE_CODES = 127
"""Codes up to this one stand in the old byte field too, which old runtimes read."""


def _once(table: Any) -> Any:
    """The table, to be stored in one place however many tensors or operators point to it."""
    place: list[int] = []
    pack = table.Pack

    def packed(builder: flatbuffers.Builder) -> int:
        if not place:
            place.append(int(pack(builder)))
        return place[0]

    table.Pack = packed
    return table


class _Quantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """Scales and zero points; the latter are eight bytes each, and stored once for all tensors that have the same."""

    def __init__(self, scales: list[float], zero: int, axis: int, places: dict[tuple[int, int], int]) -> None:
        super().__init__()
        self.scale, self.zeroPoint, self.quantizedDimension = scales, [zero] * len(scales), axis
        self._key, self._places = (zero, len(scales)), places

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self._key not in self._places:
            self._places[self._key] = builder.CreateNumpyVector(np.array(self.zeroPoint, np.int64))
        scales = builder.CreateNumpyVector(np.array(self.scale, np.float32))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scales)
        schema.QuantizationParametersAddZeroPoint(builder, self._places[self._key])
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        return int(schema.QuantizationParametersEnd(builder))


class Graph:
    """One subgraph under construction; tensors are known by their number."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version, self._model.description = _VERSION, "nca-edge"
        self._model.operatorCodes, self._model.buffers = [], [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._model.subgraphs = [self._graph]
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: dict[bytes, int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}
        self._tables: dict[tuple[Any, ...], Any] = {}
        """Scales and options that are alike, by what they say."""
        self._zeros: dict[tuple[int, int], int] = {}

    def tensor(
        self, name: str | None, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32, signed: bool = True
    ) -> int:
        """A tensor that is computed or given; a first size of -1 is 1 until a caller asks for more.

        Parameters
        ----------
        name : of an input or output; None: none that means anything
        signed : say which size is free; where an operator tells, the runtime works it out
        """
        made = schema.TensorT()
        made.name, made.type, made.buffer, made.hasRank = name or f"{len(self._graph.tensors):x}", kind, 0, True
        made.shape = [abs(size) for size in shape]
        if signed and shape[0] == -1:
            made.shapeSignature = list(shape)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def shape(self, tensor: int) -> list[int]:
        """Sizes of a tensor; of a first one that is free, 1."""
        return list(self._graph.tensors[tensor].shape)

    def constant(self, array: NDArray[Any], scales: NDArray[np.float32] | None = None, axis: int = 0) -> int:
        """A stored array; ``scales``: integers stand for themselves times the scale of all, or of each place on ``axis``."""
        array = np.ascontiguousarray(array)
        raw = array.tobytes()
        key = (array.dtype.str, array.shape, raw, axis, None if scales is None else scales.tobytes())
        if key not in self._constants:
            number = self.tensor(None, array.shape, TYPES[array.dtype.str])
            made = self._graph.tensors[number]
            made.buffer = self._buffer(raw)
            if scales is not None:
                made.quantization = self._quantization(scales.tolist(), 0, axis)
            self._constants[key] = number
        return self._constants[key]

    def _quantization(self, scales: list[float], zero: int, axis: int = 0) -> Any:
        return self._shared(("scale", *scales, zero, axis), lambda: _Quantization(scales, zero, axis, self._zeros))

    def _options(self, name: str, options: dict[str, Any]) -> Any:
        made = getattr(schema, f"{name}T")()
        for key, value in options.items():
            setattr(made, key, value)
        return self._shared((name, repr(options)), lambda: made)

    def _shared(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._tables:
            self._tables[key] = _once(make())
        return self._tables[key]

    def _buffer(self, raw: bytes) -> int:
        if raw not in self._buffers:
            made = schema.BufferT()
            made.data = np.frombuffer(raw, np.uint8)
            self._model.buffers.append(made)
            self._buffers[raw] = len(self._model.buffers) - 1
        return self._buffers[raw]

    def add(self, kind: str, inputs: list[int], shape: tuple[int, ...], into: Scale | None = None, **options: Any) -> int:
        """An operator with one output of that shape.

        Parameters
        ----------
        kind : as in the schema, such as ``CONV_2D``
        into : scale and zero point of an int8 output; None: float32, or as the input where the operator only moves it
        options : of the operator's table, such as ``padding``
        """
        output = self.tensor(None, shape, signed=kind == "SLICE")
        first, made = self._graph.tensors[inputs[0]], self._graph.tensors[output]
        if kind in MOVERS:
            made.type, made.quantization = first.type, first.quantization
        elif into is not None:
            made.type, made.quantization = schema.TensorType.INT8, self._quantization([into[0]], into[1])
        operator = schema.OperatorT()
        version = VERSIONS_8.get(kind, 1) if first.type == schema.TensorType.INT8 else 1
        operator.opcodeIndex = self._code(getattr(OP, kind), version)
        operator.inputs, operator.outputs = inputs, [output]
        if name := _OPTIONS.get(kind):
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = self._options(name, options)
        self._graph.operators.append(operator)
        return output

    def slice(self, x: int, axis: int, start: int, shape: tuple[int, ...]) -> int:
        """What lies from ``start`` on along an axis."""
        begin = np.zeros(len(shape), np.int32)
        begin[axis] = start
        return self.add("SLICE", [x, self.constant(begin), self.constant(np.array(shape, np.int32))], shape)

    def reshape(self, x: int, shape: tuple[int, ...]) -> int:
        """The same numbers in another shape."""
        return self.add("RESHAPE", [x, self.constant(np.array(shape, np.int32))], shape, newShape=list(shape))

    def concatenate(self, parts: list[int], axis: int, shape: tuple[int, ...]) -> int:
        """Side by side along an axis; int8 parts have one scale."""
        return self.add("CONCATENATION", parts, shape, axis=axis, fusedActivationFunction=schema.ActivationFunctionType.NONE)

    def reflected(self, x: int, rows: tuple[int, int], columns: tuple[int, int]) -> int:
        """(n, grid, grid, channels), reflected by 0 or 1 lines at the ends of both axes.

        MIRROR_PAD would split the delegate's graph: twice the time.
        """
        n, shape = self.shape(x)[1], [-1, *self.shape(x)[1:]]
        for axis, ends in ((1, rows), (2, columns)):
            line = tuple([*shape[:axis], 1, *shape[axis + 1 :]])
            before = [self.slice(x, axis, 1, line)] if ends[0] else []
            after = [self.slice(x, axis, n - 2, line)] if ends[1] else []
            shape[axis] = n + sum(ends)
            x = self.concatenate([*before, x, *after], axis, tuple(shape))
        return x

    def _code(self, builtin: int, version: int) -> int:
        if (builtin, version) not in self._codes:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = builtin, min(builtin, _BYTE_CODES), version
            self._model.operatorCodes.append(made)
            self._codes[builtin, version] = len(self._model.operatorCodes) - 1
        return self._codes[builtin, version]

    def finish(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file; callers find inputs and outputs by these names."""
        self._graph.inputs, self._graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = _named(inputs), _named(outputs)
        self._model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self._model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())


_OPTIONS = {
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "MAX_POOL_2D": "Pool2DOptions", "MUL": "MulOptions", "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions", "SLICE": "SliceOptions", "SPACE_TO_DEPTH": "SpaceToDepthOptions",
}  # fmt: skip
"""Operator -> the table of its options."""


def _named(tensors: dict[str, int]) -> list[Any]:
    made = []
    for name, number in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, number
        made.append(entry)
    return made
