"""TarFlow written down plainly from its description: no cache, no batching of branches, any dtype."""

import torch
from torch.nn import functional as F


def block_parameters(weights, block, x, labels, temperature=1.0, head_dim=16):
    """Log scale and shift of every token of `x` `[N, T, D]`, in the block's own order; zero at the first."""

    def get(name):
        return weights[f"blocks.{block}.{name}"]

    count, length, _ = x.shape
    positions = get("pos_embed").flip(0) if block % 2 else get("pos_embed")
    hidden = x @ get("proj_in.weight").T + get("proj_in.bias") + positions
    if f"blocks.{block}.class_embed" in weights:
        table = get("class_embed")
        rows = [table[label] if label >= 0 else table.mean(0) for label in labels]
        hidden = hidden + torch.stack(rows)
    size = hidden.shape[-1]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    layer = 0
    while f"blocks.{block}.attn_blocks.{layer}.mlp.norm.weight" in weights:
        part = f"attn_blocks.{layer}."
        normed = F.layer_norm(hidden, (size,), get(part + "attention.norm.weight"), get(part + "attention.norm.bias"))
        qkv = normed @ get(part + "attention.qkv.weight").T + get(part + "attention.qkv.bias")
        query, key, value = (
            tensor.reshape(count, length, -1, head_dim)
            for tensor in (qkv[..., :size], qkv[..., size : 2 * size], qkv[..., 2 * size :])
        )
        logits = torch.einsum("nqhd,nkhd->nhqk", query, key) / head_dim**0.5 / temperature
        attention = logits.masked_fill(~mask, float("-inf")).softmax(-1)
        attended = torch.einsum("nhqk,nkhd->nqhd", attention, value).reshape(count, length, size)
        hidden = hidden + attended @ get(part + "attention.proj.weight").T + get(part + "attention.proj.bias")
        normed = F.layer_norm(hidden, (size,), get(part + "mlp.norm.weight"), get(part + "mlp.norm.bias"))
        inner = F.gelu(normed @ get(part + "mlp.main.0.weight").T + get(part + "mlp.main.0.bias"))
        hidden = hidden + inner @ get(part + "mlp.main.2.weight").T + get(part + "mlp.main.2.bias")
        layer += 1
    output = hidden @ get("proj_out.weight").T + get("proj_out.bias")
    output = torch.cat([torch.zeros_like(output[:, :1]), output[:, :-1]], 1)
    if output.shape[-1] == x.shape[-1]:
        return torch.zeros_like(output), output
    return output[..., : x.shape[-1]], output[..., x.shape[-1] :]


def num_blocks(weights):
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))


def encode(weights, pixels, labels, patch_size, head_dim=16):
    """Noise `[N, T, D]` and log-determinant per dimension `[N]` of pictures."""
    x = F.unfold(pixels, patch_size, stride=patch_size).transpose(1, 2)
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for block in range(num_blocks(weights)):
        x = x.flip(1) if block % 2 else x
        s, u = block_parameters(weights, block, x, labels, head_dim=head_dim)
        x = (x - u) * torch.exp(-s)
        x = x.flip(1) if block % 2 else x
        log_det = log_det - s.mean((1, 2))
    return x, log_det


def sample(weights, z, labels, guidance=0.0, annealed=True, what="both", temperature=1.0, head_dim=16):
    """Patches `[N, T, D]` from noise, one token after the other, every token by a pass over all of them."""
    x = z
    length = z.shape[1]
    for block in reversed(range(num_blocks(weights))):
        z = x.flip(1) if block % 2 else x
        x = torch.zeros_like(z)
        x[:, 0] = z[:, 0]
        for t in range(1, length):
            s, u = block_parameters(weights, block, x, labels, head_dim=head_dim)
            if guidance:
                nothing = [-1] * len(x)
                s2, u2 = block_parameters(weights, block, x, nothing, temperature, head_dim)
                w = guidance * t / (length - 1) if annealed else guidance
                s = s + w * (s - s2) if what != "shift" else s
                u = u + w * (u - u2) if what != "scale" else u
            x[:, t] = z[:, t] * torch.exp(s[:, t]) + u[:, t]
        x = x.flip(1) if block % 2 else x
    return x
