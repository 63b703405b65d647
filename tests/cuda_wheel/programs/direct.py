"""Ways past the dispatcher, which only a CUDA build of torch has."""

from __future__ import annotations

import ctypes

import torch


def allocated() -> int:
    return torch.cuda.memory_allocated()


def case_it_is_a_cuda_build(device: str) -> None:
    assert torch.version.cuda is not None
    assert torch.backends.cuda.is_built()
    assert torch.cuda.get_device_name().startswith("xpool ")


def case_storages_of_the_caching_allocator_have_names(device: str) -> None:
    before = allocated()
    made = torch._C.StorageBase.__new__(torch.UntypedStorage, 1 << 20, device="cuda")
    assert allocated() - before == 1 << 20
    tensor = torch.empty(0, dtype=torch.uint8, device="cuda").set_(made)
    assert tensor.fill_(3).sum().item() == 3 << 20
    assert (tensor.cpu() == 3).all()
    del tensor, made
    assert allocated() == before


def case_storages_by_hand(device: str) -> None:
    storage = torch.UntypedStorage(64, device="cuda")
    storage.fill_(1)
    storage[3] = 7
    assert storage.tolist()[:5] == [1, 1, 1, 7, 1]
    storage.resize_(128)
    assert storage.nbytes() == 128
    assert storage[3] == 7
    storage.resize_(0)
    assert storage.nbytes() == 0


def case_legacy_constructors(device: str) -> None:
    like = torch.ones(2, device="cuda")
    assert like.new(3, 3).fill_(2).sum().item() == 18
    assert like.new([1, 2]).sum().item() == 3
    assert torch.cuda.FloatTensor([1, 2, 3]).sum().item() == 6


def case_attention_is_the_same_as_on_a_cpu_build(device: str) -> None:
    functional = torch.nn.functional
    query = torch.randn(2, 4, 8, 16)
    wanted = functional.scaled_dot_product_attention(query, query, query)
    remote = query.cuda()
    got = functional.scaled_dot_product_attention(remote, remote, remote)
    torch.testing.assert_close(got.cpu(), wanted)


def case_a_composite_with_a_kernel_for_cuda_is_differentiated(device: str) -> None:
    """torch has a backward of its own for these, which a server may lack."""
    gradients = []
    for place in ("cpu", "cuda"):
        x = torch.linspace(-1, 2, 12).view(3, 4).to(place).requires_grad_()
        torch.nn.functional.rms_norm(x, (4,)).pow(2).sum().backward()
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(gradients[1], gradients[0])


def case_layouts_without_kernels_are_refused(device: str) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], device="cuda")
    try:
        nested * 2
    except (RuntimeError, NotImplementedError):
        pass
    else:
        raise AssertionError("a kernel of this host's runtime ran")
    assert torch.ones(2, device="cuda").sum().item() == 2, "the session goes on"


def case_versions_of_the_libraries(device: str) -> None:
    assert torch.backends.cudnn.version() > 0
    assert "CUDA" in torch.__config__.show()
    assert torch.backends.cuda.cufft_plan_cache.size == 0


def case_the_drivers_name_is_taken(device: str) -> None:
    """Whoever opens the driver by its name finds the stand-in."""
    driver = ctypes.CDLL("libcuda.so.1")
    assert driver.xpool_stand_in_abi() > 0
