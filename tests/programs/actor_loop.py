"""Reinforcement learning in tiny steps: an item() for every action, a replay buffer."""

import json
import random

import torch
from torch import nn
from torch.distributions import Categorical

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
random.seed(0)
maze, goal = 5, (4, 4)


def features(place):
    return torch.tensor([place[0] / maze, place[1] / maze, 1.0], device=device)


def move(place, action):
    dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[action]
    fresh = (min(max(place[0] + dx, 0), maze - 1), min(max(place[1] + dy, 0), maze - 1))
    return fresh, 1.0 if fresh == goal else -0.05, fresh == goal


policy = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4)).to(device)
value = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).to(device)
optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=1e-2)
returns, entropies, steps = [], [], 0
for episode in range(6):
    place, rewards, log_probs, values, entropy = (0, 0), [], [], [], 0.0
    for _ in range(20):
        state = features(place)
        pick = Categorical(logits=policy(state))
        # Drawn on the host, so that any device gives the same episode.
        probabilities = pick.probs.tolist()
        action = random.choices(range(4), probabilities)[0]
        log_probs.append(pick.log_prob(torch.tensor(action, device=device)))
        values.append(value(state).squeeze())
        entropy += pick.entropy().item()
        place, reward, is_done = move(place, action)
        rewards.append(reward)
        steps += 1
        if is_done:
            break
    total, targets = 0.0, []
    for reward in reversed(rewards):
        total = reward + 0.95 * total
        targets.insert(0, total)
    targets = torch.tensor(targets, device=device)
    baseline = torch.stack(values)
    advantage = targets - baseline.detach()
    loss = (
        -(torch.stack(log_probs) * advantage).mean()
        + (baseline - targets).square().mean()
    )
    optimizer.zero_grad()
    loss.backward()
    if nn.utils.clip_grad_norm_(policy.parameters(), 1.0).item() > 100:
        raise SystemExit("diverged")
    optimizer.step()
    returns.append(sum(rewards))
    entropies.append(entropy)
print(
    json.dumps(
        {
            "returns": returns,
            "entropies": entropies,
            "steps": steps,
            "loss": loss.item(),
        }
    )
)
