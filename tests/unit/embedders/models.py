"""Small ONNX models made on the spot: the mean of each colour, or something that no embedder can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper, save


def make_model(
    path: Path,
    *,
    shape: tuple[Any, ...] = ("n", 3, 8, 8),
    op: str = "GlobalAveragePool",
    output_shape: tuple[Any, ...] | None = None,
    element: int = TensorProto.FLOAT,
    n_outputs: int = 1,
) -> Path:
    """A model with the input `pixels` and the output `features` (and `more` if two are asked for)."""
    inputs = [helper.make_tensor_value_info("pixels", element, shape)]
    names = ["features", "more"][:n_outputs]
    nodes = [helper.make_node(op, ["pixels"], [name]) for name in names]
    outputs = [
        helper.make_tensor_value_info(name, element, output_shape or (shape[0], 3, 1, 1)) for name in names
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, path)
    return path


def make_slow_model(path: Path) -> Path:
    """The same shape of input, but a hundred million rounds of a loop."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("n", 3, 8, 8))
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    kept = helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)
    moved = helper.make_tensor_value_info("moved", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Abs", ["kept"], ["moved"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            kept,
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, ()), moved],
    )
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
            helper.make_node("Loop", ["rounds", "yes", "pooled"], ["features"], body=body),
        ],
        "slow",
        [pixels],
        [features],
        initializer=[
            helper.make_tensor("rounds", TensorProto.INT64, (), [100_000_000]),
            helper.make_tensor("yes", TensorProto.BOOL, (), [True]),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
