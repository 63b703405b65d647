"""Sparse tensors as programs use them, compared with the CPU's."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from cases import is_real_gpu
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(0)
DENSE = torch.randn(6, 6) * (torch.rand(6, 6) < 0.4)
X = torch.linspace(-1, 1, 18).view(6, 3)
COO, CSR = DENSE.to_sparse(), DENSE.to_sparse_csr()
LAYOUTS = {
    "coo": COO,
    "csr": CSR,
    "csc": DENSE.to_sparse_csc(),
    "bsr": DENSE.to_sparse_bsr((2, 2)),
    "bsc": DENSE.to_sparse_bsc((2, 2)),
}


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.layout == want.layout, (got.layout, want.layout)
    assert got.dtype == want.dtype
    if want.layout is torch.sparse_coo:
        if not is_real_gpu("cuda"):  # whose kernels coalesce less often
            assert got.is_coalesced() == want.is_coalesced()
        assert (got.sparse_dim(), got.dense_dim()) == (
            want.sparse_dim(),
            want.dense_dim(),
        )
    if want.layout is not torch.strided:
        got, want = got.cpu().to_dense(), want.to_dense()
    torch.testing.assert_close(got.cpu(), want)


def both(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> None:
    want = function(*(t.clone() for t in tensors))
    got = function(*(t.to("cuda") for t in tensors))
    assert got.device.type == "cuda"
    same(got, want)


def case_there_and_back(device: str) -> None:
    for name, tensor in LAYOUTS.items():
        there = tensor.cuda()
        assert there.layout == tensor.layout, name
        assert there.device.type == "cuda"
        same(there.cpu(), tensor)
        same(there.to("cuda", torch.float64).cpu(), tensor.double())
        assert "device='cuda:0'" in str(there)
    assert COO.cuda().type() == "torch.cuda.sparse.FloatTensor"
    assert COO.cuda()._nnz() == COO._nnz()
    assert CSR.cuda().crow_indices().tolist() == CSR.crow_indices().tolist()


def case_conversions(device: str) -> None:
    for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        both(lambda d, layout=layout: d.to_sparse(layout=layout), DENSE)
        both(lambda s: s.to_dense(), DENSE.to_sparse(layout=layout))
    both(lambda d: d.to_sparse_bsr((2, 3)), DENSE)
    both(lambda d: d.to_sparse_bsc((3, 2)), DENSE)
    both(lambda d: d.to_sparse(1), X)
    both(lambda s: s.to_sparse_csr(), COO)
    both(lambda s: s.to_sparse(), CSR)
    both(lambda s: s.to_sparse_csc(), CSR)
    both(lambda r: torch._convert_indices_from_coo_to_csr(r, 6), COO.indices()[0])
    both(torch._convert_indices_from_csr_to_coo, CSR.crow_indices(), CSR.col_indices())


def case_construction(device: str) -> None:
    given: list[Any] = [[[0, 1], [1, 0]], [1.0, 2.0], (2, 2)]
    same(
        torch.sparse_coo_tensor(*given, device="cuda"), torch.sparse_coo_tensor(*given)
    )
    indices, values = torch.tensor(given[0]).cuda(), torch.ones(2).cuda()
    assert torch.sparse_coo_tensor(indices, values).shape == (2, 2)
    rows: list[Any] = [[0, 1, 2], [1, 0], [1.0, 2.0]]
    same(torch.sparse_csr_tensor(*rows, device="cuda"), torch.sparse_csr_tensor(*rows))
    with torch.sparse.check_sparse_tensor_invariants():
        torch.sparse_csr_tensor(*[torch.tensor(part).cuda() for part in rows])
        torch.sparse_coo_tensor(indices, values, (2, 2))
    for layout in (torch.sparse_coo, torch.sparse_csr):
        empty = torch.zeros(3, 3, layout=layout, device="cuda")
        assert empty.to_dense().sum().item() == 0
    made = torch.cuda.sparse.FloatTensor(indices, values, torch.Size([2, 2]))
    assert isinstance(made, torch.cuda.sparse.FloatTensor)
    assert made.to_dense().tolist() == [[0, 1], [1, 0]]


def case_wrong_indices_are_an_error_and_harm_nothing(device: str) -> None:
    bad = torch.tensor([[0, 1 << 40], [1, 0]]).cuda()
    wrong = torch.sparse_coo_tensor(bad, torch.ones(2).cuda(), (2, 2))
    crow, col = torch.tensor([0, 9, 2]).cuda(), torch.tensor([0, 1]).cuda()
    other = torch.sparse_csr_tensor(crow, col, torch.ones(2).cuda(), (2, 2))
    for one in (wrong, other):
        try:
            one.to_dense().sum().item()
        except RuntimeError as error:
            assert "ind" in str(error)
        else:
            raise AssertionError("indices outside the tensor were taken")
    same(COO.cuda() * 2, COO * 2)


def case_arithmetic(device: str) -> None:
    for sparse in (COO, CSR):
        both(lambda s: s * 2, sparse)
        both(lambda s: -s, sparse)
        both(lambda s: s + s, sparse)
        both(lambda s: s.abs_(), sparse)
        both(lambda s: s.mul_(3), sparse)
        both(lambda s: s.sum(), sparse)
        both(lambda s: s.double().sin(), sparse)
        both(lambda s: torch.zeros_like(s), sparse)
        both(lambda s: s.transpose(0, 1), sparse)
        both(lambda s: s[2], sparse)
    both(lambda s, d: s * d, COO, DENSE.t())
    both(lambda s, d: s * d, COO, DENSE.t().contiguous().to_sparse())
    both(lambda d, s: d + s, DENSE, COO)
    both(lambda d, s: d.add_(s, alpha=2), DENSE, COO)
    both(lambda s: s * 1j, COO)
    both(lambda s: s.pow(2), COO)
    both(lambda s: s.norm(), COO)
    both(lambda s: s.isnan(), COO)
    both(lambda s: s.zero_(), COO)


def case_a_tensor_and_itself(device: str) -> None:
    """Some kernels take two sparse tensors only if they are one."""
    for layout in (torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        block = (2, 2) if layout in (torch.sparse_bsr, torch.sparse_bsc) else None
        square = torch.eye(4).to_sparse(layout=layout, blocksize=block)
        both(lambda s: s + s, square)
        both(lambda s: torch.add(s, s, alpha=3), square)


def reduces_products(device: str) -> bool:
    """torch's CUDA kernels lack ``sparse.mm`` with a reduction."""
    return not is_real_gpu(device)


def case_extremes_of_a_product_have_gradients(device: str) -> None:
    if not reduces_products(device):
        return
    dense = torch.arange(24.0).sin().view(6, 4)
    rows = torch.arange(30.0).cos().view(5, 6)
    rows = torch.where(rows.abs() < 0.4, 0.0, rows)
    rows[2] = 0  # nothing to take the extreme of
    for reduce in ("amax", "amin", "sum", "mean"):
        for dtype in (torch.float32, torch.bfloat16):

            def work(s, d, reduce=reduce):
                s, d = s.requires_grad_(), d.requires_grad_()
                product = torch.sparse.mm(s, d, reduce)
                of_s, of_d = torch.autograd.grad(product.float().pow(2).sum(), (s, d))
                return product.detach(), of_s.values(), of_d

            want = work(rows.to(dtype).to_sparse_csr(), dense.to(dtype))
            there = rows.to(dtype).to_sparse_csr().cuda()
            have = work(there, dense.to(dtype).cuda())
            for one, other in zip(have, want, strict=True):
                torch.testing.assert_close(one.cpu(), other)


def case_shapes(device: str) -> None:
    both(lambda s: torch.cat([s, s]), COO)
    both(lambda s: torch.cat([s, s], 1).coalesce(), COO)
    both(lambda s: s.unsqueeze(0), COO)
    both(lambda s: s.narrow_copy(0, 1, 2), COO)
    both(lambda s: s.index_select(0, torch.tensor([0, 2]).to(s.device)), COO)
    both(lambda s: torch.sparse.sum(s, 0), COO)
    both(lambda s: torch.sparse.softmax(s, 1), COO)
    both(lambda s: torch.sparse.log_softmax(s, 1), COO)
    both(lambda d, s: d.sparse_mask(s), DENSE + 1, COO)
    both(lambda d, s: d.sparse_mask(s), DENSE + 1, CSR)
    both(lambda s: torch.zeros_like(s).copy_(s), COO)
    there = COO.cuda()
    there.sparse_resize_((8, 8), 2, 0)
    assert there.shape == (8, 8)


def case_coalesce(device: str) -> None:
    indices = torch.tensor([[2, 0, 2], [1, 3, 1]])
    mine = torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2, 3]), (3, 4))
    there = mine.cuda()
    assert not there.is_coalesced()
    found = there.coalesce()
    assert found.is_coalesced()
    assert found.indices().tolist() == [[0, 2], [3, 1]]
    assert found.values().tolist() == [2, 4]
    assert found.coalesce() is found
    found.values().mul_(10)
    assert found.to_dense().sum().item() == 60


def case_products(device: str) -> None:
    for name, sparse in LAYOUTS.items():
        if name != "bsc":  # not on the CPU either
            both(lambda s, x: s @ x, sparse, X)
    both(lambda s, x: s.t() @ x, COO, X)
    both(lambda s: torch.sparse.mm(s, s), COO)
    both(lambda s: torch.sparse.mm(s, s), CSR)
    both(lambda i, s, x: torch.sparse.addmm(i, s, x), X, COO, X)
    both(lambda s: s.mv(torch.ones(6, device=s.device)), COO)
    both(lambda s: s.mv(torch.ones(6, device=s.device)), CSR)
    both(lambda s, x: torch.sparse.sampled_addmm(s, x, x.t()), CSR, X)
    if reduces_products(device):
        both(lambda s, x: torch.sparse.mm(s, x, "mean"), CSR, X)
    stacked, xs = torch.stack([DENSE, DENSE]).to_sparse(), torch.stack([X, X])
    both(lambda s, x: torch.bmm(s, x), stacked, xs)


def case_a_known_product_does_not_wait(device: str) -> None:
    import xpool

    library = xpool.current_remote().library
    sparse, x = COO.cuda(), X.cuda()
    torch.sparse.mm(sparse, x)
    before = library.plan_counters()["requests"]
    for _ in range(5):
        x = torch.sparse.mm(sparse, x)
    assert library.plan_counters()["requests"] == before
    want = X
    for _ in range(5):
        want = torch.sparse.mm(COO, want)
    same(x, want)


def case_gradients(device: str) -> None:
    def product(d: torch.Tensor, x: torch.Tensor, layout: torch.layout) -> torch.Tensor:
        d.requires_grad_(), x.requires_grad_()
        (d.to_sparse(layout=layout) @ x).pow(2).sum().backward()
        return torch.cat([d.grad.to_dense(), x.grad], 1)

    both(lambda d, x: product(d, x, torch.sparse_coo), DENSE, X)
    both(lambda d, x: product(d, x, torch.sparse_csr), DENSE, X)

    def leaf(d: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        s = d.to_sparse().requires_grad_()
        torch.sparse.mm(s, x.requires_grad_()).sum().backward()
        return s.grad.coalesce()

    both(leaf, DENSE, X)

    def through(function: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(d: torch.Tensor) -> torch.Tensor:
            total = function(d.requires_grad_().to_sparse()).to_dense().pow(2).sum()
            return torch.autograd.grad(total, d)[0].to_dense()

        return run

    def reduced(s: torch.Tensor, x: torch.Tensor, how: str) -> torch.Tensor:
        s.requires_grad_(), x.requires_grad_()
        torch.sparse.mm(s, x, how).sum().backward()
        return torch.cat([s.grad.to_dense(), x.grad], 1)

    for how in ("sum", "mean") if reduces_products(device) else ():
        both(lambda s, x, how=how: reduced(s, x, how), CSR, X)
    both(through(lambda s: torch.sparse.softmax(s, 1)), DENSE)
    both(through(lambda s: torch.sparse.sum(s, 1)), DENSE)
    both(through(lambda s: s), DENSE)


def case_sparse_embedding_gradients(device: str) -> None:
    makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
        "sparse_adam": lambda p: torch.optim.SparseAdam(p, lr=0.1),
    }

    def train(index: torch.Tensor, make: Any) -> torch.Tensor:
        layer = nn.Embedding(20, 4, sparse=True).to(index.device)
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(-1, 1, 80).view(20, 4))
        optimizer = make(layer.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            layer(index).pow(2).sum().backward()
            layer(index.flip(0)).sum().backward()
            assert layer.weight.grad.is_sparse
            optimizer.step()
        return layer.weight.detach()

    for make in makers.values():
        both(lambda i, make=make: train(i, make), torch.tensor([1, 3, 3, 7]))


def case_graph_convolution(device: str) -> None:
    def train(adjacency: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        first, second = nn.Linear(3, 8), nn.Linear(8, 2)
        model = nn.ModuleList([first, second]).to(x.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        labels = torch.tensor([0, 1, 0, 1, 1, 0], device=x.device)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            hidden = torch.sparse.mm(adjacency, first(x)).relu()
            out = torch.sparse.mm(adjacency, second(hidden))
            loss = nn.functional.cross_entropy(out, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    ring = (torch.eye(6) + torch.eye(6).roll(1, 0) + torch.eye(6).roll(-1, 0)) / 3
    both(train, ring.to_sparse(), X)
    both(train, ring.to_sparse_csr(), X)


def case_save_load_and_copy(device: str) -> None:
    for name, tensor in LAYOUTS.items():
        there = tensor.cuda()
        file = io.BytesIO()
        torch.save({name: there}, file)
        file.seek(0)
        loaded = torch.load(file)[name]
        assert loaded.device.type == "cuda"
        same(loaded, tensor)
        file.seek(0)
        same(torch.load(file, map_location="cpu")[name], tensor)
        same(there.clone(), tensor)
    same(copy.deepcopy(COO.cuda()), COO)


def case_memory_comes_back(device: str) -> None:
    import gc

    gc.collect()
    before = torch.cuda.memory_allocated()
    there = COO.cuda()
    for _ in range(3):
        there = (there + there).coalesce()
    there.mul_(2)
    assert torch.cuda.memory_allocated() > before
    del there
    gc.collect()
    assert torch.cuda.memory_allocated() == before
    torch.cuda.synchronize()
