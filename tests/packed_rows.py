"""Packed rows for tests of attention, what they should give, and stand-ins for kernels that need CUDA.

The stand-ins do what the documentation of the kernels says, slowly and with gradients.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import AuxOutput, AuxRequest, create_mask

from po.engine.attention import Scoring, Segments
from po.engine.packing import pack

GROUPS = [(9, [4]), (30, [7, 12]), (5, [1, 2, 3]), (120, [20, 33])]
WINDOWS = [None, 1, 3, 25, 400]
CAPS = [None, 2.0]


def segments(groups=GROUPS, window=None, filler=0, device="cpu"):
    lengths = torch.tensor([(prompt, own) for prompt, completions in groups for own in completions])
    owners = torch.tensor([i for i, (_, completions) in enumerate(groups) for _ in completions])
    first = (owners.unsqueeze(1) == owners).int().argmax(dim=1)
    column = torch.arange(int(lengths.sum(dim=1).max()))
    inside = column < lengths.sum(dim=1, keepdim=True)
    completion = inside & (column >= lengths[:, :1])
    given = [inside.long(), inside.long(), completion, first]
    row = pack(*(tensor.to(device) for tensor in given))
    row = replace(
        row,
        ids=F.pad(row.ids, (0, filler)),
        positions=F.pad(row.positions, (0, filler)),
        part=F.pad(row.part, (0, filler)),
        group=F.pad(row.group, (0, filler), value=-1),
    )
    return Segments(row, window)


def inputs(row, heads=4, key_heads=2, width=16, dtype=torch.float32, seed=0):
    chance = torch.Generator().manual_seed(seed)
    device = row.ids.device
    return [
        torch.randn(1, row.ids.shape[1], count, width, generator=chance).to(device, dtype).transpose(1, 2)
        for count in (heads, key_heads, key_heads)
    ]


def seen(asked):
    """By definition: same prompt, not later, in the prompt or the own completion, within the window."""
    row, order = asked.row, torch.arange(asked.row.ids.shape[1])
    part, position = row.part, row.positions[0]
    found = (row.group.unsqueeze(1) == row.group) & (row.group >= 0) & (order <= order.unsqueeze(1))
    found = found & ((part == 0) | (part == part.unsqueeze(1)))
    return found if asked.window is None else found & (position.unsqueeze(1) - position < asked.window)


def dense(q, k, v, mask, scoring):
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    scores, cap = q @ k.transpose(2, 3) * scoring.scaling, scoring.cap
    scores = scores if cap is None else torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~mask, -torch.inf)
    if scoring.sinks is None:
        return scores.softmax(dim=-1).nan_to_num(0.0) @ v
    sinks = scoring.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1] @ v


def flex_stand_in(q, k, v, *, score_mod, block_mask, scale, enable_gqa=False, return_aux=None):
    assert enable_gqa or q.shape[1] == k.shape[1]
    length = q.shape[2]
    mask = create_mask(block_mask.mask_mod, None, None, length, length, q.device)
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    scores = q @ k.transpose(2, 3) * scale
    scores = scores if score_mod is None else score_mod(scores, None, None, None, None)
    scores = scores.masked_fill(~mask, -torch.inf)
    found = scores.softmax(dim=-1) @ v
    if return_aux is None:
        return found
    assert return_aux == AuxRequest(lse=True)
    return found, AuxOutput(lse=scores.float().logsumexp(dim=-1))


def varlen_stand_in(q, k, v, ends_q, ends_k, longest_q, longest_k, scale, window, cap=None):
    """Texts one by one, the last query aligned with the last key; nothing to its right."""
    found = []
    for text in range(len(ends_q) - 1):
        own, keys = (slice(ends[text], ends[text + 1]) for ends in (ends_q, ends_k))
        tq, tk, tv = (t.transpose(0, 1).unsqueeze(0) for t in (q[own], k[keys], v[keys]))
        n_q, n_k = tq.shape[2], tk.shape[2]
        assert 0 < n_q <= longest_q and 0 < n_k <= longest_k
        behind = torch.arange(n_q).unsqueeze(1) + n_k - n_q - torch.arange(n_k)
        mask = (behind >= 0) if window[0] < 0 else (behind >= 0) & (behind <= window[0])
        assert window[1] == 0
        found.append(dense(tq, tk, tv, mask, Scoring(scale, cap))[0].transpose(0, 1))
    return torch.cat(found)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None,
    causal=False, window_size=(-1, -1), softcap=0.0,
):  # fmt: skip
    assert causal and dropout_p == 0
    return varlen_stand_in(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, window_size,
        softcap or None,
    )  # fmt: skip


def varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa or query.shape[1] == key.shape[1]
    return varlen_stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size)


def varlen_attn_without_gqa(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)
):
    return varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size
    )


def gradients(rows, tensors, asked, cap=None, real=None, scaling=0.3):
    """Values of the real tokens, and the gradients of a sum of them; a fourth tensor is that of the sinks."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    sinks = leaves[3] if len(leaves) > 3 else None
    values = rows(*leaves[:3], asked, Scoring(scaling, cap, sinks=sinks))[:, :, :real]
    weights = torch.linspace(-1, 2, values.numel(), device=values.device).view_as(values)
    return [values.detach(), *torch.autograd.grad((values * weights).sum(), leaves)]


def by_definition(q, k, v, asked, scoring):
    return dense(q, k, v, seen(asked), scoring)


def assert_close(found, expected, relative=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other.float()).abs().max() <= relative * other.abs().max()
