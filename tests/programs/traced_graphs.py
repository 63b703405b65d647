"""torch.fx and torch.export: symbolic traces, rewritten graphs, exported programs."""

import io
import json
import operator

import torch
from torch import fx, nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.b(x) + self.shift


net = Net().to(device)
x = torch.randn(3, 4).to(device)
traced = fx.symbolic_trace(net)
figures["traced"] = torch.equal(traced(x), net(x))
for node in traced.graph.nodes:
    if node.op == "call_function" and node.target in (operator.add, torch.add):
        node.target = operator.sub
traced.graph.lint()
traced.recompile()
figures["rewritten"] = (net(x) - traced(x)).sum().item()


class Shapes(fx.Interpreter):
    def run_node(self, n):
        result = super().run_node(n)
        seen.append(list(result.shape))
        return result


seen = []
Shapes(traced).run(x)
figures["shapes"] = seen
ops = fx.experimental.proxy_tensor.make_fx(lambda t: torch.relu(t @ t.T).sum())(x)
figures["make_fx"] = [ops(x).item(), len(ops.graph.nodes)]
exported = torch.export.export(net, (x,))
figures["exported"] = torch.allclose(exported.module()(x), net(x))
batch = torch.export.Dim("batch", min=2, max=64)
dynamic = torch.export.export(net, (x,), dynamic_shapes={"x": {0: batch}})
wider = torch.randn(7, 4).to(device)
figures["dynamic"] = torch.allclose(dynamic.module()(wider), net(wider))
buffer = io.BytesIO()
torch.export.save(exported, buffer)
buffer.seek(0)
again = torch.export.load(buffer)
figures["loaded"] = torch.allclose(again.module()(x), net(x))
core = exported.run_decompositions()
figures["decomposed"] = torch.allclose(core.module()(x), net(x))
print(json.dumps(figures))
