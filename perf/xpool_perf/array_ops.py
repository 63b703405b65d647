"""``array_ops``: CuPy in the pool beside NumPy here."""

from __future__ import annotations

from typing import Final

from xpool_perf.figures import Figure, Samples
from xpool_perf.path_scenarios import course, ratio
from xpool_perf.scenario import Say, Scenario, Settings

PROGRAM: Final = "array_ops.py"
ROUND_TRIP_MS: Final = 1.0
AIMS_US: Final = {"add": 10, "reshape": 10, "slice": 12, "setitem": 15, "sum": 10}


def _measure(settings: Settings, say: Say) -> Samples:
    with course(settings, say) as one:
        with one.near() as pool:
            for part in ("small", "large", "transfer", "kmeans", "others"):
                one.run(pool, part, PROGRAM, settings.runs, part)
        with one.far(ROUND_TRIP_MS) as pool:
            one.run(pool, "far", PROGRAM, settings.runs, "kmeans")
        return one.samples


def _client(name: str, aim: int) -> Figure:
    return Figure(
        name=f"client_us_per_call_{name}",
        unit="us",
        method=f"Wall time until 1,000 calls of {name} on a small array have returned,"
        f" over their number; encoded, handed over and sent meanwhile. Aim: {aim}.",
        sources=(f"small_{name}_us",),
    )


OTHERS: Final = {
    "page_rank": "PageRank by power iteration over 500 x 500",
    "jacobi": "a five-point stencil over 256 x 256, with three reads",
    "logistic": "logistic regression by mini-batches of 256 x 64",
    "lloyd": "k-means by masks over 2,000 x 8, with 17 reads an iteration",
}


def _other(name: str, what: str) -> Figure:
    return ratio(
        f"{name}_ratio",
        f"others_{name}_remote_s",
        f"others_{name}_local_s",
        f"An iteration of {what}, remote over local. Without an aim.",
    )


ARRAY_OPS: Final = Scenario(
    name="array_ops",
    summary="CuPy in the pool beside NumPy here",
    figures=(
        *(_client(name, aim) for name, aim in AIMS_US.items()),
        Figure(
            name="pipelined_calls_per_s",
            unit="1/s",
            method="Small calls of all five kinds in turn that the client issues in a"
            " second. Aim: 60,000.",
            sources=("small_calls_per_s",),
        ),
        ratio(
            "large_ratio_chain",
            "large_chain_remote_s",
            "large_chain_local_s",
            "20 element-wise operations on 10 MB and a read, remote over local."
            " Aim: 1.1.",
        ),
        ratio(
            "large_ratio_matmul",
            "large_matmul_remote_s",
            "large_matmul_local_s",
            "4 products of 1,000 x 1,000 single precision and a read, remote over"
            " local. Aim: 1.1.",
        ),
        ratio(
            "upload_over_raw_socket",
            "transfer_raw_upload_s",
            "transfer_upload_s",
            "Rate of cupy.asarray of 256 MiB, until the server has them, over the rate"
            " of a bare TCP socket that receives into warm memory. Aim: 0.9.",
        ),
        ratio(
            "download_over_raw_socket",
            "transfer_raw_download_s",
            "transfer_download_s",
            "The same of get(out=) into warm host memory. Aim: 0.9.",
        ),
        ratio(
            "kmeans_ratio",
            "kmeans_kmeans_remote_s",
            "kmeans_kmeans_local_s",
            "An iteration of examples/kmeans_cupy.py, upload and final reads included,"
            " remote over local. Aim: 1.2.",
        ),
        ratio(
            "kmeans_ratio_1ms",
            "far_kmeans_remote_s",
            "far_kmeans_local_s",
            "The same behind a round trip of 1 ms. Aim: 1.5.",
        ),
        *(_other(name, what) for name, what in OTHERS.items()),
    ),
    measure=_measure,
)
