"""A frozen ArcFace recogniser as a differentiable torch module, and the alignment warp in front of it.

The identity loss (IdGlow 3.3, eq. 2 and 3) needs the gradient of a face embedding with respect to the pixels.
ArcFace models are distributed as ONNX graphs of a dozen operators; `FaceEncoder` evaluates such a graph with
torch, with the same weights, so that one file serves both ONNX Runtime (detection and measuring) and the
loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

# Where ArcFace training put the eyes, the nose tip and the corners of the mouth: pixels of the 112x112 crop,
# left eye (as seen) first. The numbers every ArcFace model is trained with.
ARCFACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
TEMPLATE_SIZE = 112

Inputs = list[Tensor]


class FaceEncoderError(ValueError):
    """An ONNX graph that is no ArcFace recogniser this module can evaluate."""


def align_faces(
    pictures: Tensor, landmarks: Tensor, size: int = TEMPLATE_SIZE, *, picture_index: Tensor | None = None
) -> Tensor:
    """Warp each face to the ArcFace template, differentiably in the pixels and in the landmarks.

    The warp is the least-squares similarity (rotation, scale, shift; no reflection) that takes the five
    landmarks to the template, sampled bilinearly with zeros outside the picture: what
        `insightface.utils.face_align.norm_crop` does.

    Args:
        pictures: (B, 3, H, W) in [0, 1], RGB, float.
        landmarks: (F, 5, 2) in pixels (x, y), pixel centres at whole numbers: eyes, nose, mouth corners, left
            first.
        size: side of the crop, a multiple of 112.
        picture_index: (F,) which picture each face is in; without it there is one face per picture, F = B.

    Returns:
        (F, 3, size, size) in [0, 1], dtype of `pictures`.

    Raises:
        ValueError: shapes that do not fit, landmarks that are not finite or all in one point.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures must be (B, 3, H, W), got {tuple(pictures.shape)}")
    if landmarks.ndim != 3 or landmarks.shape[1:] != (5, 2):
        raise ValueError(f"landmarks must be (faces, 5, 2), got {tuple(landmarks.shape)}")
    if size <= 0 or size % TEMPLATE_SIZE:
        raise ValueError(f"size must be a multiple of {TEMPLATE_SIZE}, got {size}")
    if picture_index is None:
        if len(landmarks) != len(pictures):
            raise ValueError(f"{len(landmarks)} faces for {len(pictures)} pictures: pass picture_index to say whose")
    else:
        pictures = pictures[picture_index.to(pictures.device)]
    landmarks = landmarks.to(pictures)
    if not bool(torch.isfinite(landmarks).all()):
        raise ValueError("landmarks must be finite numbers")

    height, width = pictures.shape[-2:]
    template = landmarks.new_tensor(ARCFACE_TEMPLATE) * (size / TEMPLATE_SIZE)
    source_mean, target_mean = landmarks.mean(1, keepdim=True), template.mean(0)
    source, target = landmarks - source_mean, template - target_mean
    spread = source.square().sum((1, 2))
    if bool((spread <= 1e-12).any()):
        raise ValueError("the five landmarks of a face lie in one point, so no alignment exists")
    # A similarity is a complex factor a + bi: target = (a + bi) * source, solved in closed form.
    a = (source * target).sum((1, 2)) / spread
    b = (source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0]).sum(1) / spread
    norm = (a.square() + b.square())[:, None, None]

    steps = torch.arange(size, dtype=landmarks.dtype, device=landmarks.device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    dx, dy = columns - target_mean[0], rows - target_mean[1]
    a, b = a[:, None, None], b[:, None, None]
    x = (a * dx + b * dy) / norm + source_mean[:, :, :1]
    y = (a * dy - b * dx) / norm + source_mean[:, :, 1:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class FaceEncoder(nn.Module):
    """Frozen ArcFace recogniser: aligned RGB crops in [0, 1] -> embeddings of unit length.

    Evaluates the ONNX graph node by node. Weights are buffers (they follow `.to(device, dtype)` and never
    train); the input may require a gradient. Make one with :meth:`from_onnx`.

    Attributes:
        embedding_size: length of an embedding, read from the graph.
        input_size: side of the square crop the graph expects (112 for every known ArcFace model).
        input_mean, input_std: the graph sees (255 * crop - mean) / std, by insightface's rule.
    """

    def __init__(self, model: onnx.ModelProto, *, name: str = "the graph"):
        super().__init__()
        graph = model.graph
        unknown = sorted({node.op_type for node in graph.node} - set(_OPERATORS) - {"Constant"})
        if unknown:
            raise FaceEncoderError(
                f"{name} uses operators that ArcFace recognisers do not: {', '.join(unknown)}. "
                f"Known are: {', '.join(sorted(_OPERATORS))}. Is it a recogniser, and not a detector?"
            )
        constants = {tensor.name: tensor for tensor in graph.initializer}
        constants |= {node.output[0]: _attribute(node, "value") for node in graph.node if node.op_type == "Constant"}
        self._buffer_of: dict[str, str] = {}
        for index, (tensor_name, tensor) in enumerate(constants.items()):
            self._buffer_of[tensor_name] = f"constant_{index}"
            self.register_buffer(f"constant_{index}", torch.from_numpy(numpy_helper.to_array(tensor).copy()))

        inputs = [value for value in graph.input if value.name not in constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise FaceEncoderError(
                f"{name} has {len(inputs)} inputs and {len(graph.output)} outputs; a recogniser has one each"
            )
        self._input, self._output = inputs[0].name, graph.output[0].name
        side = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][2:]
        if len(side) != 2 or side[0] != side[1] or side[0] <= 0:
            raise FaceEncoderError(f"{name} must take (N, 3, S, S) crops of a fixed size S, its shape says {side}")
        self.input_size = side[0]
        self._nodes = tuple(
            _Node(_OPERATORS[node.op_type](node), tuple(filter(None, node.input)), node.output[0])
            for node in graph.node
            if node.op_type != "Constant"
        )
        self._last_use = {used: index for index, node in enumerate(self._nodes) for used in node.inputs}
        self.input_mean, self.input_std = _input_range(graph)
        self.eval()
        with torch.no_grad():
            example = self.features(torch.zeros(1, 3, self.input_size, self.input_size))
        if example.ndim != 2:
            raise FaceEncoderError(f"{name} must return (N, size) embeddings, it returns {tuple(example.shape)}")
        self.embedding_size = example.shape[1]

    @classmethod
    def from_onnx(cls, path: str | Path) -> FaceEncoder:
        """Read an ArcFace recogniser, such as the recognition model of an InsightFace pack.

        Raises:
            FileNotFoundError: no file at `path`.
            FaceEncoderError: not ONNX, an operator this module does not know (named), or not one input and
                one output.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no face recogniser at {path}: expected an ArcFace model in ONNX form")
        try:
            model = onnx.load(str(path))
        except Exception as error:  # protobuf raises whatever its backend raises
            raise FaceEncoderError(f"{path} is not a readable ONNX file: {error}") from error
        return cls(model, name=str(path))

    def forward(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) aligned RGB crops in [0, 1] -> (B, embedding_size) embeddings of unit length."""
        return F.normalize(self.features((crops * 255 - self.input_mean) / self.input_std), dim=1)

    def features(self, blob: Tensor) -> Tensor:
        """The bare graph, as ONNX Runtime runs it: (B, 3, S, S), scaled -> (B, embedding_size)."""
        if blob.ndim != 4 or blob.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(f"crops must be (B, 3, {self.input_size}, {self.input_size}), got {tuple(blob.shape)}")
        values = {self._input: blob}
        for index, node in enumerate(self._nodes):
            arguments = [values[key] if key in values else getattr(self, self._buffer_of[key]) for key in node.inputs]
            values[node.output] = node.evaluate(arguments)
            for key in node.inputs:  # activations are large: keep none longer than the graph needs it
                if self._last_use[key] == index and key != self._output:
                    values.pop(key, None)
        return values[self._output]

    def embed_faces(self, pictures: Tensor, landmarks: Tensor, *, picture_index: Tensor | None = None) -> Tensor:
        """Align and embed: pictures (B, 3, H, W) in [0, 1], landmarks (F, 5, 2) -> (F, embedding_size), unit
        length.
        """
        return self(align_faces(pictures, landmarks, self.input_size, picture_index=picture_index))


@dataclass(frozen=True)
class _Node:
    evaluate: Callable[[Inputs], Tensor]
    inputs: tuple[str, ...]
    output: str


def _input_range(graph: onnx.GraphProto) -> tuple[float, float]:
    """insightface's rule: graphs that begin with a subtraction and a scaling take 0..255, others -1..1."""
    first = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in first)
    scales = any(name.startswith(("Mul", "_mul")) for name in first)
    return (0.0, 1.0) if subtracts and scales else (127.5, 127.5)


def _attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _conv(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    if _attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        raise FaceEncoderError(f"convolution {node.name!r} uses auto_pad; only explicit padding is understood")
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    options = {
        "stride": tuple(_attribute(node, "strides", [1, 1])),
        "dilation": tuple(_attribute(node, "dilations", [1, 1])),
        "groups": _attribute(node, "group", 1),
    }

    def evaluate(x: Inputs) -> Tensor:
        bias = x[2] if len(x) > 2 else None
        if (top, left) == (bottom, right):
            return F.conv2d(x[0], x[1], bias, padding=(top, left), **options)
        return F.conv2d(F.pad(x[0], (left, right, top, bottom)), x[1], bias, **options)

    return evaluate


def _batch_normalization(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    epsilon = _attribute(node, "epsilon", 1e-5)
    return lambda x: F.batch_norm(x[0], x[3], x[4], x[1], x[2], training=False, eps=epsilon)


def _gemm(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    alpha, beta = _attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0)
    transpose_a, transpose_b = _attribute(node, "transA", 0), _attribute(node, "transB", 0)

    def evaluate(x: Inputs) -> Tensor:
        product = alpha * ((x[0].T if transpose_a else x[0]) @ (x[1].T if transpose_b else x[1]))
        return product + beta * x[2] if len(x) > 2 else product

    return evaluate


def _flatten(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    if _attribute(node, "axis", 1) != 1:
        raise FaceEncoderError(f"flatten {node.name!r} must keep the batch axis (axis 1)")
    return lambda x: x[0].flatten(1)


def _reshape(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    def evaluate(x: Inputs) -> Tensor:
        shape = [x[0].shape[axis] if length == 0 else int(length) for axis, length in enumerate(x[1])]
        return x[0].reshape(shape)

    return evaluate


_OPERATORS: dict[str, Callable[[onnx.NodeProto], Callable[[Inputs], Tensor]]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_normalization,
    "PRelu": lambda node: lambda x: torch.where(x[0] >= 0, x[0], x[0] * x[1]),
    "Relu": lambda node: lambda x: F.relu(x[0]),
    "Add": lambda node: lambda x: x[0] + x[1],
    "Sub": lambda node: lambda x: x[0] - x[1],
    "Mul": lambda node: lambda x: x[0] * x[1],
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Gemm": _gemm,
    "Identity": lambda node: lambda x: x[0],
    "Dropout": lambda node: lambda x: x[0],
}
