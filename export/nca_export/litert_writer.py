"""Write .tflite files through the schema that ai-edge-litert ships: no TensorFlow and no converter.

Tensors are numbered as they are made; equal constants share one buffer, so that the same weights in sixteen steps are stored
once.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

OP = schema.BuiltinOperator
TYPES = {
    "<f4": schema.TensorType.FLOAT32, "<i4": schema.TensorType.INT32, "|i1": schema.TensorType.INT8,
}  # fmt: skip
_IDENTIFIER = b"TFL3"
_VERSION = 3
_BYTE_CODES = 127
"""Codes up to this one stand in the old byte field too, which old runtimes read."""


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

    def tensor(self, name: str, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32) -> int:
        """A tensor that is computed or given; a first size of -1 is 1 until a caller asks for more."""
        made = schema.TensorT()
        made.name, made.type, made.buffer, made.hasRank = f"{name}_{len(self._graph.tensors)}", kind, 0, True
        made.shape = [abs(size) for size in shape]
        if shape[0] == -1:
            made.shapeSignature = list(shape)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def shape(self, tensor: int) -> list[int]:
        """Sizes of a tensor; of a first one that is free, 1."""
        return list(self._graph.tensors[tensor].shape)

    def constant(self, array: NDArray[Any], scales: NDArray[np.float32] | None = None) -> int:
        """A stored array; with ``scales`` int8 numbers stand for themselves times the scale: of the tensor, or of each row."""
        array = np.ascontiguousarray(array)
        raw = array.tobytes()
        key = (array.dtype.str, array.shape, raw, None if scales is None else scales.tobytes())
        if key not in self._constants:
            number = self.tensor("constant", array.shape, TYPES[array.dtype.str])
            made = self._graph.tensors[number]
            made.buffer = self._buffer(raw)
            if scales is not None:
                quantization = schema.QuantizationParametersT()
                quantization.scale, quantization.zeroPoint = scales.tolist(), [0] * len(scales)
                quantization.quantizedDimension = 0
                made.quantization = quantization
            self._constants[key] = number
        return self._constants[key]

    def _buffer(self, raw: bytes) -> int:
        if raw not in self._buffers:
            made = schema.BufferT()
            made.data = np.frombuffer(raw, np.uint8)
            self._model.buffers.append(made)
            self._buffers[raw] = len(self._model.buffers) - 1
        return self._buffers[raw]

    def add(self, kind: str, inputs: list[int], shape: tuple[int, ...], version: int = 1, **options: Any) -> int:
        """An operator with one output of that shape.

        Parameters
        ----------
        kind : as in the schema, such as ``CONV_2D``
        version : of the operator, which says what types it takes
        options : of the operator's table, such as ``padding``
        """
        output = self.tensor(kind.lower(), shape)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(OP, kind), version)
        operator.inputs, operator.outputs = inputs, [output]
        if name := _OPTIONS.get(kind):
            table = getattr(schema, f"{name}T")()
            for key, value in options.items():
                setattr(table, key, value)
            operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, name), table
        self._graph.operators.append(operator)
        return output

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
