"""A session whose server says nonsense of what it lacks: ``DEVICE`` is the argument.

What is no operation of this torch says nothing; what is one is refused by name, with
nothing sent; and everything else goes on.
"""

from __future__ import annotations

import os
import sys

import recording

HOSTILE = (
    *("", "?", "aten::", "::", ".", "aten::?x", "no such thing", "aten::add.Tensor?no"),
    *("aten::add.Tensor\x00", "aten::add.Tensor.out.out", "x" * 256, "é" * 256),
    *("aten::_softmax?dim?half_to_float", "aten::mul.Tensor", "aten::mul.Tensor"),
    *("aten::cumsum", *(f"aten::unheard_{i}" for i in range(1000))),
)


def main() -> None:
    device = sys.argv[1]
    recording.LACKING = HOSTILE
    install = {"cuda": recording.install_cuda, "xpool": recording.install_xpool}
    tap, _ = install[device](None)

    import torch

    x = torch.ones(3, device=device)
    tap.drain()
    for lacking in (lambda: x * x, lambda: x.cumsum(0)):
        try:
            lacking()
        except NotImplementedError as error:
            said = str(error)
        else:
            raise AssertionError("it was sent")
        assert "has no kernel for the device of server 'nobody' (cpu: nothing)" in said
        assert said.startswith(("aten::mul.Tensor ", "aten::cumsum ")), said
        assert not tap.drain(), "something was recorded"
    assert (x + x).sum().shape == ()
    assert (x.sub(1).view(1, 3) @ x).shape == (1,)
    assert tap.drain()
    sys.stdout.write("well\n")
    sys.stdout.flush()
    os._exit(0)  # there is no server to leave


if __name__ == "__main__":
    main()
