"""Attention takes the kernel that the CPU takes, and marks arrive; both devices."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def heads(dtype: torch.dtype) -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4, 6, 8, generator=drawn).to(dtype) for _ in range(3)]


def masks(dtype: torch.dtype) -> Iterator[dict[str, object]]:
    yield {}
    yield {"is_causal": True, "scale": 0.3}
    yield {"attn_mask": torch.ones(6, 6).tril().bool()}
    yield {"attn_mask": torch.linspace(-1, 1, 72).view(2, 1, 6, 6).to(dtype)}


def attended(device: str, dtype: torch.dtype, named: dict[str, object]):
    """The result and its gradients; the name of the node that will make them."""
    given = [one.to(device).requires_grad_() for one in heads(dtype)]
    moved = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in named.items()
    }
    result = F.scaled_dot_product_attention(*given, **moved)
    gradients = torch.autograd.grad(result.float().pow(2).sum(), given)
    return [result, *gradients], type(result.grad_fn).__name__


def case_results_and_gradients_are_those_of_the_fused_kernel(device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for named in masks(dtype):
            want, node = attended("cpu", dtype, named)
            have, remote_node = attended(device, dtype, named)
            assert remote_node == node, (remote_node, node)
            for one, other in zip(have, want, strict=True):
                assert one.stride() == other.stride()
                torch.testing.assert_close(one.cpu(), other)


def case_a_program_chooses_the_kernel(device: str) -> None:
    q, k, v = (one.to(device).requires_grad_() for one in heads(torch.float32))
    fused = F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        apart = F.scaled_dot_product_attention(q, k, v)
    assert "Flash" in type(fused.grad_fn).__name__
    assert "Flash" not in type(apart.grad_fn).__name__
    torch.testing.assert_close(apart.cpu(), fused.cpu())


def case_what_no_fused_kernel_takes(device: str) -> None:
    q, k, v = (one.to(device) for one in heads(torch.float32))
    want = F.scaled_dot_product_attention(*heads(torch.float32))
    torch.manual_seed(0)
    dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    assert dropped.shape == want.shape
    grouped = F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)
    assert grouped.shape == want.shape
    flat = F.scaled_dot_product_attention(q[0, 0], k[0, 0], v[0, 0])
    torch.testing.assert_close(flat.cpu(), want[0, 0])
    for wrong in (
        {"attn_mask": torch.zeros(6, 6, device=device), "is_causal": True},
        {"attn_mask": torch.zeros(6, 6, device=device, dtype=torch.int64)},
    ):
        try:
            F.scaled_dot_product_attention(q, k, v, **wrong)
        except RuntimeError as error:
            assert "attn_mask" in str(error)
        else:
            raise AssertionError("torch refuses these")


def case_a_wrong_prediction_fails_once(device: str) -> None:
    """The server contradicts it, the session goes on, and it is asked from then on."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_pdist_forward", lambda x, p=2.0: x.new_empty(99), "Meta")
    x = torch.linspace(0, 1, 12).view(4, 3).to(device)
    try:
        torch.pdist(x).cpu()
    except RuntimeError as error:
        assert "predicted sizes [99]" in str(error), error
    else:
        raise AssertionError("the prediction was wrong")
    for rows in (4, 4, 3, 4):
        want = torch.pdist(x[:rows].cpu())
        torch.testing.assert_close(torch.pdist(x[:rows]).cpu(), want)
    del library


def case_an_out_tensor_keeps_the_mark_that_the_kernel_leaves(device: str) -> None:
    drawn = torch.Generator().manual_seed(3)
    matrix, right = (
        torch.randn(n, 3, dtype=torch.complex64, generator=drawn) for n in (3, 4)
    )
    factors, pivots = torch.linalg.lu_factor(matrix)
    given = (factors, pivots, right)
    want = torch.linalg.lu_solve(*given, left=False)
    for shape in ((4, 3), (0,)):
        outs = []
        for where in ("cpu", device):
            there = [one.to(where) for one in given]
            for _ in range(2):  # the second time from what was learned
                out = torch.empty(shape, dtype=torch.complex64, device=where)
                got = torch.linalg.lu_solve(*there, left=False, out=out)
                assert got is out
            outs.append(out)
        local, remote = outs
        assert remote.is_conj() == local.is_conj()
        assert remote.stride() == local.stride()
        torch.testing.assert_close(remote.cpu(), want)
    plain = torch.empty(3, 3, dtype=torch.complex64, device=device)
    for _ in range(2):
        torch.matmul(matrix.to(device), matrix.to(device), out=plain)
        torch.testing.assert_close(plain.cpu(), matrix @ matrix)
