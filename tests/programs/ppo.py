"""PPO: distributions, generalised advantages, clipped ratios, minibatches."""

import json

import torch
from torch import nn
from torch.distributions import Categorical

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
envs, horizon, gamma, lam, clip = 4, 16, 0.99, 0.95, 0.2


def layer_init(layer, std=2**0.5):
    torch.nn.init.orthogonal_(layer.weight, std)
    torch.nn.init.constant_(layer.bias, 0.0)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(
            layer_init(nn.Linear(3, 16)), nn.Tanh(), layer_init(nn.Linear(16, 1), 1.0)
        )
        self.actor = nn.Sequential(
            layer_init(nn.Linear(3, 16)), nn.Tanh(), layer_init(nn.Linear(16, 3), 0.01)
        )

    def act(self, x, action=None):
        policy = Categorical(logits=self.actor(x))
        if action is None:
            action = policy.probs.argmax(-1)
        return action, policy.log_prob(action), policy.entropy(), self.critic(x)


agent = Agent().to(device)
optimizer = torch.optim.Adam(agent.parameters(), lr=5e-3, eps=1e-5)
observations = torch.zeros(horizon, envs, 3, device=device)
actions = torch.zeros(horizon, envs, device=device)
log_probs, rewards, dones, values = (
    torch.zeros(horizon, envs, device=device) for _ in range(4)
)
state = torch.randn(envs, 3).to(device)
done = torch.zeros(envs, device=device)
figures = []
for update in range(3):
    for group in optimizer.param_groups:
        group["lr"] = 5e-3 * (1 - update / 3)
    for step in range(horizon):
        observations[step], dones[step] = state, done
        with torch.no_grad():
            action, log_prob, _, value = agent.act(state)
        values[step], actions[step], log_probs[step] = value.flatten(), action, log_prob
        moved = state.roll(1, -1) * 0.9 + (action.float() - 1).unsqueeze(-1) * 0.3
        rewards[step] = -moved.abs().sum(-1)
        done = (moved.abs().max(-1).values > 1.5).float()
        state = torch.where(done.bool().unsqueeze(-1), torch.zeros_like(moved), moved)
    with torch.no_grad():
        next_value = agent.critic(state).flatten()
        advantages = torch.zeros_like(rewards)
        last = 0
        for t in reversed(range(horizon)):
            alive = 1.0 - (done if t == horizon - 1 else dones[t + 1])
            after = next_value if t == horizon - 1 else values[t + 1]
            delta = rewards[t] + gamma * after * alive - values[t]
            advantages[t] = last = delta + gamma * lam * alive * last
        returns = advantages + values
    flat = [
        one.reshape(-1, *one.shape[2:])
        for one in (observations, actions, log_probs, advantages, returns)
    ]
    for start in range(0, envs * horizon, 16):
        index = (
            torch.arange(envs * horizon).view(16, -1).T.reshape(-1)[start : start + 16]
        )
        obs, act, old, advantage, target = (one[index] for one in flat)
        _, new, entropy, value = agent.act(obs, act.long())
        ratio = (new - old).exp()
        with torch.no_grad():
            kl = ((ratio - 1) - (new - old)).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(
            -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
        ).mean()
        loss = (
            policy_loss
            - 0.01 * entropy.mean()
            + 0.25 * (value[:, 0] - target).pow(2).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()
    figures.append([loss.item(), kl.item() < 0.1, rewards.mean().item()])
sampled = Categorical(logits=agent.actor(state)).sample((100,))
print(json.dumps({"updates": figures[:2], "sampled": list(sampled.shape)}))
