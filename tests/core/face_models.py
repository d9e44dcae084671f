"""Tiny ONNX face models with random weights, in the forms that InsightFace packs have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def arcface_model(
    *, embedding_size: int = 16, seed: int = 0, scaling_names=("first", "second"), pads=(1, 1, 1, 1)
) -> onnx.ModelProto:
    """An ArcFace-style recogniser, 112x112, with every operator such graphs are known to use."""
    rng = np.random.default_rng(seed)
    weights = {
        "shift": np.full((1,), 0.1, np.float32),
        "scale": np.full((1,), 0.5, np.float32),
        "stem.weight": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "stem.bias": rng.normal(0, 0.1, 8).astype(np.float32),
        "gamma": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "beta": rng.normal(0, 0.2, 8).astype(np.float32),
        "mean": rng.normal(0, 0.2, 8).astype(np.float32),
        "variance": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "slope": rng.uniform(0.1, 0.4, (8, 1, 1)).astype(np.float32),
        "depthwise": rng.normal(0, 0.3, (8, 1, 3, 3)).astype(np.float32),
        "pool": rng.normal(0, 0.3, (8, 1, 7, 7)).astype(np.float32),
        "head.weight": rng.normal(0, 0.3, (embedding_size, 8 * 4)).astype(np.float32),
        "head.bias": rng.normal(0, 0.1, embedding_size).astype(np.float32),
    }
    shape = numpy_helper.from_array(np.array([0, -1], np.int64))

    def node(kind: str, inputs: list[str], output: str, **attributes):
        return helper.make_node(kind, inputs, [output], name=attributes.pop("name", output), **attributes)

    nodes = [
        node("Sub", ["data", "shift"], "n0", name=scaling_names[0]),
        node("Mul", ["n0", "scale"], "n1", name=scaling_names[1]),
        node(
            "Conv",
            ["n1", "stem.weight", "stem.bias"],
            "n2",
            strides=[4, 4],
            pads=list(pads),
            kernel_shape=[3, 3],
        ),
        node("BatchNormalization", ["n2", "gamma", "beta", "mean", "variance"], "n3", epsilon=1e-3),
        node("PRelu", ["n3", "slope"], "n4"),
        node("Conv", ["n4", "depthwise"], "n5", group=8, pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Add", ["n4", "n5"], "n6"),
        node("Relu", ["n6"], "n7"),
        node("Conv", ["n7", "pool"], "n8", group=8, strides=[14, 14], pads=[0, 0, 0, 0], kernel_shape=[7, 7]),
        node("Flatten", ["n8"], "n9", axis=1),
        node("Constant", [], "shape", value=shape),
        node("Reshape", ["n9", "shape"], "n10"),
        node("Dropout", ["n10"], "n11"),
        node("Identity", ["n11"], "n12"),
        node("Gemm", ["n12", "head.weight", "head.bias"], "embedding", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", embedding_size])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


# Centre (x, y) of the three faces that `constant_detector` finds in a 128x128 view, by stride.
DETECTED = {8: (64, 40), 16: (32, 80), 32: (96, 64)}


def constant_detector() -> onnx.ModelProto:
    """SCRFD's form with fixed answers for a 128x128 view: one face on each stride, 40 px wide.

    The input only enters multiplied by zero; the three faces lie at x = 32, 64 and 104 or so, in score order
    64 first.
    """
    outputs, nodes, weights = [], [], {"zero": np.zeros((), np.float32)}
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    landmarks = np.array([[-10, -8], [10, -8], [0, 2], [-8, 12], [8, 12]], np.float32)
    for kind, width in (("score", 1), ("box", 4), ("landmarks", 10)):
        for rank, (stride, (x, y)) in enumerate(DETECTED.items()):
            cells = 128 // stride
            values = np.zeros((cells * cells * 2, width), np.float32)
            row = 2 * ((y // stride) * cells + x // stride)
            offset = np.array([x - x // stride * stride, y - y // stride * stride], np.float32)
            if rank == 2:
                offset += (8, 0)
            if kind == "score":
                values[row] = 0.9 - 0.1 * rank
            elif kind == "box":
                values[row] = np.concatenate([20 - offset, 20 + offset]) / stride
            else:
                values[row] = (landmarks + offset).ravel() / stride
            name = f"{kind}_{stride}"
            weights[f"{name}.values"] = values
            nodes.append(helper.make_node("Add", [f"{name}.values", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(values.shape)))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def constant_attributes() -> onnx.ModelProto:
    """InsightFace's attribute form (96x96 -> 3 numbers) that always answers: male, 37 years."""
    weights = {"zero": np.zeros((), np.float32), "answer": np.array([[0.1, 0.9, 0.37]], np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["answer", "nothing"], ["attributes"]),
        ],
        "attributes",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 96, 96])],
        [helper.make_tensor_value_info("attributes", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write_pack(directory: Path, *, attributes: bool = True, manifest: bool = False) -> Path:
    """A pack of the models above; `manifest` adds insightface's manifest with the SHA-256 of every file."""
    directory.mkdir(parents=True)
    models = {"detection": ("detector", constant_detector()), "recognition": ("recogniser", arcface_model())}
    if attributes:
        models["attributes"] = ("attributes", constant_attributes())
    tasks = {}
    for task, (name, model) in models.items():
        file = directory / f"{name}.onnx"
        onnx.save(model, file)
        tasks[task] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    if manifest:
        tasks["recognition"]["embedding_dimension"] = 16
        content = {
            "manifest_version": 2,
            "model_id": "tiny",
            "license": "MODEL.LICENSE",
            "license_spdx": "Apache-2.0",
            "same_person_threshold": 0.25,
            "tasks": tasks,
        }
        (directory / "manifest.json").write_text(json.dumps(content))
    return directory
