"""Triton's kernels over remote tensors. Run by test_arrays.py."""

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Add two vectors."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    x = tl.load(x_ptr + at, mask=mask)
    y = tl.load(y_ptr + at, mask=mask)
    tl.store(out_ptr + at, x + y, mask=mask)


@triton.jit
def scale_kernel(x_ptr, factor, n, BLOCK: tl.constexpr):
    """Multiply by a number, in place."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(x_ptr + at, tl.load(x_ptr + at, mask=mask) * factor, mask=mask)


@triton.jit
def softmax_kernel(out_ptr, x_ptr, row, columns, BLOCK: tl.constexpr):
    """One row for each program."""
    where = tl.program_id(0) * row
    at = tl.arange(0, BLOCK)
    mask = at < columns
    x = tl.load(x_ptr + where + at, mask=mask, other=-float("inf"))
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + where + at, e / tl.sum(e, axis=0), mask=mask)


@triton.autotune(
    configs=[
        triton.Config({"M": 32, "N": 32, "K": 32}, num_warps=4),
        triton.Config({"M": 64, "N": 64, "K": 32}, num_warps=4),
        triton.Config({"M": 128, "N": 128, "K": 64}, num_warps=8, num_stages=4),
    ],
    key=["m", "n", "k"],
)
@triton.jit
def matmul_kernel(
    a, b, c, m, n, k, sa, sb, sc, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    """A tile for each program."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    acc = tl.zeros((M, N), dtype=tl.float32)
    for begin in range(0, k, K):
        inner = begin + tl.arange(0, K)
        left = tl.load(
            a + rows[:, None] * sa + inner[None, :],
            mask=(rows[:, None] < m) & (inner[None, :] < k),
            other=0.0,
        )
        right = tl.load(
            b + inner[:, None] * sb + columns[None, :],
            mask=(inner[:, None] < k) & (columns[None, :] < n),
            other=0.0,
        )
        acc = tl.dot(left, right, acc)
    tl.store(
        c + rows[:, None] * sc + columns[None, :],
        acc.to(tl.float16),
        mask=(rows[:, None] < m) & (columns[None, :] < n),
    )


def case_add(device):
    x, y = torch.rand(10_000, device=device), torch.rand(10_000, device=device)
    out = torch.empty_like(x)
    for _ in range(3):
        add_kernel[(triton.cdiv(10_000, 1024),)](x, y, out, 10_000, BLOCK=1024)
        assert torch.equal(out, x + y)


def case_a_grid_of_its_meta_parameters(device):
    x = torch.ones(1000, device=device)
    scale_kernel[lambda meta: (triton.cdiv(1000, meta["BLOCK"]),)](
        x, 2.5, 1000, BLOCK=256
    )
    assert x.sum().item() == 2500


def case_a_view(device):
    x = torch.arange(100.0, device=device)
    scale_kernel[(1,)](x[40:], 0.0, 10, BLOCK=16)
    expected = torch.arange(100.0)
    expected[40:50] = 0
    assert torch.equal(x.cpu(), expected)


def case_softmax(device):
    x = torch.randn(64, 300, device=device)
    out = torch.empty_like(x)
    softmax_kernel[(64,)](out, x, 300, 300, BLOCK=512)
    torch.testing.assert_close(out, torch.softmax(x, dim=1))


def case_a_tuned_matmul(device):
    a = torch.randn(200, 300, device=device, dtype=torch.float16)
    b = torch.randn(300, 260, device=device, dtype=torch.float16)
    c = torch.empty(200, 260, device=device, dtype=torch.float16)
    for _ in range(2):
        matmul_kernel[
            lambda meta: (triton.cdiv(200, meta["M"]), triton.cdiv(260, meta["N"]))
        ](a, b, c, 200, 260, 300, 300, 260, 260)
        torch.testing.assert_close(c, a @ b, atol=5e-2, rtol=1e-2)


def case_benchmarked(device):
    x = torch.rand(1 << 20, device=device)
    took = triton.testing.do_bench(
        lambda: scale_kernel[(1024,)](x, 1.0, 1 << 20, BLOCK=1024)
    )
    assert 0 < took < 1000
