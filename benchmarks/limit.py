"""Measures how close a batch comes to the fastest possible on this machine.

    python benchmarks/limit.py --photos 12mp -n 24

The limit is a sum of floors, all measured in the same run with all cores busy: the fastest known
way to decode, to shrink to the network's input, to enlarge the matte, to make the cut-out and to
encode it, and the network's arithmetic at the speed of the fastest matrix product of ONNX Runtime
on this machine. The arithmetic is that of the published file; bgx's prepared copy needs less, so
the network alone can be below its floor. Starting, file access, handing pictures over and waiting
count as 0. 1.25 means that a whole `bgx batch --no-refine` takes a quarter longer than the limit.

Each round measures the floors and then the batch; ratios are medians over rounds.
"""

from __future__ import annotations

import io
import math
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import measure
import photos
import vs_rembg
from bgx.image.matte import upsample_matte
from bgx.machine import count_cores
from bgx.model.providers import load_runtime
from encoders import encode_png

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

MODEL = vs_rembg.MODEL
INPUT = (320, 320)
SAMPLES = 6
"""Photos on which floors are measured: one of each kind that photos.py draws."""

MATRIX_SIZES = (512, 1024, 2048)


@dataclass(frozen=True)
class Sample:
    """One photo before and after each step. pixels: of the cut-out, uint8 (height, width, 4)."""

    jpeg: bytes
    photo: Image.Image
    matte: Image.Image
    alpha: Image.Image
    cut_out: Image.Image
    pixels: NDArray[np.uint8]

    @classmethod
    def draw(cls, size: tuple[int, int], seed: int) -> Sample:
        drawn, true_alpha = photos.render(*size, seed)
        jpeg = photos.encode_jpeg(drawn)
        with Image.open(io.BytesIO(jpeg)) as decoded:
            photo = decoded.convert("RGB")
        matte = true_alpha.resize(INPUT, Image.Resampling.BOX)
        alpha = matte.resize(size, Image.Resampling.LANCZOS)
        cut_out = photo.copy()
        cut_out.putalpha(alpha)
        sample = cls(jpeg, photo, matte, alpha, cut_out, np.array(cut_out))
        sample.compose()
        return sample

    def decode(self) -> None:
        with Image.open(io.BytesIO(self.jpeg)) as photo:
            photo.load()

    def shrink(self) -> None:
        self.photo.resize(INPUT, Image.Resampling.LANCZOS, reducing_gap=1.0)

    def enlarge(self) -> None:
        upsample_matte(np.asarray(self.matte, np.float32) / np.float32(255), self.photo.size)

    def compose(self) -> None:
        """Put alpha beside the colours and zero the colours under alpha 0, both in place."""
        self.cut_out.putalpha(self.alpha)
        words = self.pixels.view(np.uint32)[:, :, 0]
        words *= np.asarray(self.alpha) != 0

    def encode(self) -> None:
        encode_png(self.pixels)


STAGES: dict[str, Callable[[Sample], None]] = {
    "decode": Sample.decode,
    "shrink": Sample.shrink,
    "enlarge": Sample.enlarge,
    "compose": Sample.compose,
    "encode": Sample.encode,
}


def seconds_each(operate: Callable[[Any], object], items: Sequence[Any], cores: int) -> float:
    """Seconds per item while every core works on items of its own; the faster of two passes."""
    with ThreadPoolExecutor(cores) as pool:
        return measure.fastest(lambda: list(pool.map(operate, items)), 2) / len(items)


def matrix_product(size: int) -> Callable[[object], object]:
    """A product of two square float32 matrices through ONNX Runtime, on one thread."""
    from onnx import TensorProto, helper, numpy_helper

    runtime = load_runtime()
    values = np.random.default_rng(0).random((size, size), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(values, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda _: session.run(None, {"x": values})


def peak_flops(products: dict[int, Callable[[object], object]], cores: int) -> float:
    """Floating-point operations per second of the best product, all cores busy."""
    rates = []
    for size, multiply in products.items():
        operations = 2 * size**3
        # Some GFLOP per core: long enough to be timed, short enough to fit between other processes.
        items = range(cores * math.ceil(4e9 / operations))
        rates.append(operations / seconds_each(multiply, items, cores))
    return max(rates)


def network_flops(model_file: Path) -> int:
    """Floating-point operations of a network's convolutions for one picture: 2 per multiply-add."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(model_file)).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    return sum(
        2 * math.prod(shapes[node.output[0]][2:]) * math.prod(weights[node.input[1]])
        for node in graph.node
        if node.op_type == "Conv"
    )


def open_network(home: Path) -> Callable[[object], object]:
    """A function that runs the network once, as in a batch, on random input."""
    session = vs_rembg.open_network(home)
    batch = np.random.default_rng(0).standard_normal((1, 3, *INPUT), np.float32)
    return lambda _: session.run(batch)


def measure_round(
    samples: Sequence[Sample],
    products: dict[int, Callable[[object], object]],
    network: Callable[[object], object],
    operations: int,
    cores: int,
) -> dict[str, Any]:
    """Floors in seconds per picture, the peak in FLOP/s, the network alone in seconds."""
    items = list(samples) * cores
    floors = {name: seconds_each(stage, items, cores) for name, stage in STAGES.items()}
    peak = peak_flops(products, cores)
    floors["network"] = operations / peak
    alone = seconds_each(network, range(4 * cores), cores)
    return {"floors": floors, "peak_flops": peak, "network_alone": alone}


def summarize(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds; ratios are taken within a round."""
    limits = [sum(one["floors"].values()) for one in rounds]
    return {
        "floors": {
            name: statistics.median(one["floors"][name] for one in rounds)
            for name in rounds[0]["floors"]
        },
        "limit": statistics.median(limits),
        "batch": statistics.median(one["batch"] for one in rounds),
        "batch over limit": statistics.median(
            one["batch"] / limit for one, limit in zip(rounds, limits, strict=True)
        ),
        "network alone": statistics.median(one["network_alone"] for one in rounds),
        "network alone over floor": statistics.median(
            one["network_alone"] / one["floors"]["network"] for one in rounds
        ),
        "peak GFLOP/s": statistics.median(one["peak_flops"] for one in rounds) / 1e9,
    }


def describe(summary: dict[str, Any]) -> str:
    """The table: milliseconds per picture."""
    lines = [f"{name:24}{1e3 * seconds:9.1f} ms" for name, seconds in summary["floors"].items()]
    lines.append(f"{'limit (their sum)':24}{1e3 * summary['limit']:9.1f} ms")
    lines.append(
        f"{'bgx batch':24}{1e3 * summary['batch']:9.1f} ms"
        f"   {summary['batch over limit']:.2f} x the limit"
    )
    lines.append(
        f"{'network alone':24}{1e3 * summary['network alone']:9.1f} ms"
        f"   {summary['network alone over floor']:.2f} x its floor"
        f" ({summary['peak GFLOP/s']:.0f} GFLOP/s)"
    )
    return "\n".join(lines)


def main() -> None:
    parser = vs_rembg.make_parser(__doc__)
    parser.add_argument("bgx_options", nargs="*", help="further options for bgx, after --")
    asked = parser.parse_args()
    size = photos.SIZES[asked.photos]
    model_file = asked.model_file or vs_rembg.known_model_file()
    cores = count_cores()
    operations = network_flops(model_file)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        bgx = vs_rembg.bgx_tool(folder / "bgx-home", model_file, asked.bgx_options)
        work = vs_rembg.Work.prepare(folder, size, asked.n)
        samples = [Sample.draw(size, seed) for seed in range(SAMPLES)]
        products = {size: matrix_product(size) for size in MATRIX_SIZES}
        work.cut_cold(bgx)
        network = open_network(folder / "bgx-home")
        for _ in range(asked.repeats):
            one = measure_round(samples, products, network, operations, cores)
            one["batch"] = work.cut_all(bgx).seconds / asked.n
            rounds.append(one)
    summary = summarize(rounds)
    record = measure.make_record(
        "limit",
        settings={
            "model": MODEL,
            "operations per picture": operations,
            "photos": {"width": size[0], "height": size[1], "count": asked.n},
            "rounds": asked.repeats,
            "bgx options": asked.bgx_options,
        },
        versions={"bgx": measure.versions()},
        measurements={"rounds": rounds},
        summary=summary,
    )
    print(f"{asked.n} photos of {size[0]} x {size[1]}, {asked.repeats} rounds, {MODEL}")
    print(describe(summary))
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()
