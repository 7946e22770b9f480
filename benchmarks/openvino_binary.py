"""1W1A convolutions of 3x3: ours beside OpenVINO's BinaryConvolution, layer shape by layer shape.

    python benchmarks/openvino_binary.py [--rounds 31] [--threads 1] [--out FILE]

No front end of OpenVINO emits the operator, so its graph is built here by hand: FakeQuantize of two levels,
BinaryConvolution with weights of type u1, scale and bias per filter. Ours is a file of XnorBinaryConv nodes. Both are
four such layers in a row with one batch, because a single one would time the entry into the engine; both compute the
same (asserted; places outside the maps read -1). They take turns, in this process. Prints medians with the 10th and
90th percentile in milliseconds per layer, and multiply-accumulates per nanosecond, as JSON.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import equibit as eb
from equibit import bits, kernels
from equibit.export.functions import OPSET, function
from equibit.training import record

LAYERS = 4
SHAPES = [
    (64, 32),
    (64, 56),
    (128, 16),
    (128, 28),
    (128, 32),
    (256, 8),
    (256, 14),
    (512, 4),
    (512, 7),
]  # channels, side
Array = NDArray[Any]
Run = Callable[[Array], Array]


def weights(channels: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [
        {
            "binary": rng.choice(np.array([-1, 1], np.int8), (channels, channels, 3, 3)),
            "scale": rng.uniform(0.01, 0.02, channels).astype(np.float32),
            "bias": rng.normal(0, 0.1, channels).astype(np.float32),
        }
        for _ in range(LAYERS)
    ]


def ours(layers: list[dict[str, Array]], side: int, threads: int) -> Run:
    channels = len(layers[0]["scale"])
    geometry = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "perm": [0, 3, 1, 2]}
    nodes, constants = [], []
    for i, layer in enumerate(layers):
        rows = bits.pack_bits(layer["binary"].transpose(0, 2, 3, 1).reshape(channels, -1))
        tensors = {f"bits{i}": rows, f"scale{i}": layer["scale"], f"bias{i}": layer["bias"]}
        constants += [numpy_helper.from_array(value, name) for name, value in tensors.items()]
        names = [f"x{i}", *tensors]
        attributes = geometry | {"shape": [channels, 3, 3, channels], "pad_value": -1.0}
        nodes.append(
            helper.make_node("XnorBinaryConv", names, [f"x{i + 1}"], f"layer{i}", domain="equibit", **attributes)
        )
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, side, side]) for n in ("x0", f"x{LAYERS}")
    ]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("equibit", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, functions=[function("XnorBinaryConv")], ir_version=10)
    session = eb.runtime.InferenceSession(proto.SerializeToString(), threads=threads)
    return lambda x: np.asarray(session.run(None, {"x0": x})[0])


def openvino(layers: list[dict[str, Array]], side: int, threads: int) -> Run:
    ov, op = importlib.import_module("openvino"), importlib.import_module("openvino.opset1")
    channels = len(layers[0]["scale"])
    given = x = op.parameter([1, channels, side, side], np.float32)
    low, high = np.zeros((1, channels, 1, 1), np.float32), np.ones((1, channels, 1, 1), np.float32)
    kept: list[Array] = []  # OpenVINO's constants borrow their memory
    for layer in layers:
        signs = op.fake_quantize(x, low, low, low, high, 2)
        kept.append(np.packbits(layer["binary"].reshape(-1) > 0, bitorder="little"))
        weight = ov.op.Constant(ov.Tensor(kept[-1], ov.Shape(layer["binary"].shape), ov.Type.u1))
        dot = op.binary_convolution(signs, weight, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", -1.0)
        x = op.add(
            op.multiply(dot, layer["scale"].reshape(1, -1, 1, 1)), op.constant(layer["bias"].reshape(1, -1, 1, 1))
        )
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(ov.Model([x], [given]), "CPU", settings).create_infer_request()

    def run(inputs: Array) -> Array:
        assert len(kept) == LAYERS  # and lives as long as the request
        return np.array(next(iter(request.infer([inputs]).values())))

    return run


def measure(channels: int, side: int, threads: int, rounds: int) -> dict[str, Any]:
    layers = weights(channels)
    x = np.random.default_rng(1).standard_normal((1, channels, side, side)).astype(np.float32)
    runs = {"equibit": ours(layers, side, threads), "openvino": openvino(layers, side, threads)}
    found = {name: run(x) for name, run in runs.items()}
    np.testing.assert_allclose(found["equibit"], found["openvino"], rtol=1e-4, atol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(x)  # brings the caches back
            start = time.perf_counter()
            run(x)
            times[name].append(1e3 * (time.perf_counter() - start) / LAYERS)
    macs = channels * channels * 9 * side * side
    result: dict[str, Any] = {"channels": channels, "side": side}
    for name, taken in times.items():
        median, low, high = np.percentile(taken, (50, 10, 90)).tolist()
        result[name] = {"median_ms": median, "p10_ms": low, "p90_ms": high, "macs_per_ns": macs / median / 1e6}
    return result | {"speed": result["openvino"]["median_ms"] / result["equibit"]["median_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = {
        "cpu": kernels.cpu_name(),
        "kernel": kernels.active(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "openvino": metadata.version("openvino"),
        "commit": record.source_commit(),
        "layers": [measure(*shape, arguments.threads, arguments.rounds) for shape in SHAPES],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
