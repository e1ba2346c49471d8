from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from reverie.nn import attention
from reverie.nn.attention import (
    MAX_FEW,
    Visibility,
    attend,
    attend_few,
    attend_flex,
    attend_steps,
    flex,
    flex_works,
    is_few,
    picks_flex,
)
from reverie.nn.cache import KVCache
from reverie.nn.rope import rotary_table, rotate, split_pairs

CPU = torch.device("cpu")


def qkv(steps: int, tokens: int, grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, steps * tokens, 8, dtype=torch.double, generator=generator).requires_grad_(grad)
        for _ in range(3)
    ]


@pytest.mark.parametrize(
    "visibility",
    [
        Visibility.windowed(7, 3, 1),
        Visibility.windowed(6, 4, 3),
        Visibility.teacher_forced(5, 3),
        Visibility.teacher_forced(4, 4, copies=3),
        Visibility.teacher_forced(9, 4, given=0, copies=2, block=3),
        Visibility.teacher_forced(7, 5, sink=1, block=2),
    ],
)
@pytest.mark.parametrize("large", [16, 17], ids=["large steps", "small steps"])
def test_step_attention_equals_masked_attention_and_so_do_its_gradients(
    visibility: Visibility, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverie.nn.attention.LARGE_STEP", large)
    q, k, v = qkv(len(visibility), 16, grad=True)
    out = attend_steps(q, k, v, visibility)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(16, 16, CPU))
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    ours = torch.autograd.grad((out * weight).sum(), (q, k, v))
    theirs = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("q_tokens", "k_tokens"), [(1, 1), (16, 1)], ids=["mouse", "keyboard"])
def test_written_out_attention_equals_masked_attention_and_so_do_its_gradients(q_tokens: int, k_tokens: int) -> None:
    visibility = Visibility.teacher_forced(7, 5, sink=1, block=2)
    q, (_, k, v) = qkv(len(visibility), q_tokens, grad=True)[0], qkv(len(visibility), k_tokens, grad=True)
    out = attend_steps(q, k, v, visibility)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(q_tokens, k_tokens, CPU))
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    ours = torch.autograd.grad((out * weight).sum(), (q, k, v))
    torch.testing.assert_close(ours, torch.autograd.grad((expected * weight).sum(), (q, k, v)))


def test_who_sees_whom() -> None:
    assert Visibility.windowed(4, 2, 1).ranges == (((0, 1),), ((0, 2),), ((1, 3),), ((2, 4),))
    assert Visibility.windowed(4, 4, 2).ranges == (((0, 2),), ((0, 2),), ((0, 4),), ((0, 4),))
    # clean 0 1 2, then noisy 1 2 3: a noisy step sees clean steps before it and itself, never its own clean self
    assert Visibility.teacher_forced(4, 3).ranges[3:] == (((0, 1), (3, 4)), ((0, 2), (4, 5)), ((1, 3), (5, 6)))
    # blocks of two: clean 0 1, then noisy 0 1 2 3; and after one given step: clean 0 1 2, then noisy 1 2 3 4
    blocks = Visibility.teacher_forced(4, 3, given=0, block=2).ranges
    assert blocks == (((0, 2),), ((0, 2),), ((2, 4),), ((2, 4),), ((1, 2), (4, 6)), ((1, 2), (4, 6)))
    assert Visibility.teacher_forced(5, 3, block=2).ranges[:3] == (((0, 1),), ((0, 3),), ((0, 3),))
    assert Visibility.teacher_forced(5, 3, block=2).ranges[5:] == (((2, 3), (5, 7)), ((2, 3), (5, 7)))
    # with a sink the first step is never given up, and one less of the last ones fits
    assert Visibility.windowed(5, 3, 1, sink=1).ranges[2:] == (((0, 3),), ((0, 1), (2, 4)), ((0, 1), (3, 5)))
    noisy = Visibility.teacher_forced(5, 3, sink=1).ranges[4:]
    assert noisy[:2] == (((0, 1), (4, 5)), ((0, 2), (5, 6)))
    assert noisy[2:] == (((0, 1), (2, 3), (6, 7)), ((0, 1), (3, 4), (7, 8)))


@pytest.mark.parametrize(
    ("window", "block", "sink"),
    [(1, 1, 0), (4, 1, 0), (6, 3, 0), (4, 3, 0), (5, 2, 0), (4, 1, 1), (6, 2, 2), (7, 3, 3), (5, 1, 4)],
)
def test_the_rings_eviction_is_the_windowed_mask(window: int, block: int, sink: int) -> None:
    steps, tokens = 4 * block * window, 2
    q, k, v = qkv(steps, tokens)
    mask = Visibility.windowed(steps, window, block, sink).mask(tokens, tokens, CPU)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    ring = KVCache.empty(2, 3, 8, window=window, sink=sink, tokens=tokens, device=CPU, dtype=torch.double)
    for start in range(0, steps, block):
        mine = slice(start * tokens, (start + block) * tokens)
        for _ in range(2):  # a block may be read many times before it is committed
            ring.read(torch.randn_like(k[:, :, mine]), v[:, :, mine])
        joined = attend(q[:, :, mine], *ring.joined(k[:, :, mine], v[:, :, mine]))
        out = attend(q[:, :, mine], *ring.commit(k[:, :, mine], v[:, :, mine]))
        torch.testing.assert_close(joined, out)
        torch.testing.assert_close(out, expected[:, :, mine])


def test_rotary_attention_depends_on_differences_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 5, 1, 24, generator=generator).unbind(0)
    positions = torch.randint(0, 9, (5, 3), generator=generator).double()
    scores = []
    for offset in (0, 1_000_000):
        table = rotary_table(positions + offset, split_pairs(24), 10000.0)
        scores.append(torch.einsum("nhd,mhd->nm", rotate(q, table), rotate(k, table)))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores[0], torch.einsum("nhd,mhd->nm", q, k))


def test_rotation_leaves_the_rest_of_a_head_alone() -> None:
    x = torch.randn(4, 2, 10)
    out = rotate(x, rotary_table(torch.arange(4.0)[:, None], [3], 100.0))
    assert torch.equal(out[..., 6:], x[..., 6:])
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


def test_few_keys_element_by_element() -> None:
    torch.manual_seed(0)
    q, (k, v) = torch.randn(5, 2, 3, 16, requires_grad=True), torch.randn(2, 5, 2, 6, 16, requires_grad=True)
    torch.testing.assert_close(attend_few(q, k, v), F.scaled_dot_product_attention(q, k, v))
    half = [x.bfloat16() for x in (q, k, v)]
    assert attend_few(*half).dtype == torch.bfloat16


def test_few_is_for_gpus() -> None:
    with FakeTensorMode():
        few, many = (torch.empty(4, 2, n, 8, device="cuda") for n in (MAX_FEW, MAX_FEW + 1))
        assert is_few(few)
        assert not is_few(many)
    assert not is_few(torch.empty(4, 2, 1, 8))


VISIBILITIES = [
    Visibility.windowed(7, 3, 1),
    Visibility.windowed(6, 4, 3),
    Visibility.teacher_forced(5, 3, copies=2),
    Visibility.teacher_forced(9, 4, given=0, copies=2, block=3),
    Visibility.teacher_forced(7, 5, sink=1, block=2),
]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize("tokens", [16, 28])
def test_flex_attention_equals_the_attention_of_a_cpu(visibility: Visibility, tokens: int) -> None:
    """As it would run on a GPU, but uncompiled: over blocks of 128, most of which are not whole steps."""
    q, k, v = (x.float() for x in qkv(len(visibility), tokens))
    expected = attend_steps(q, k, v, visibility)
    torch.testing.assert_close(attend_flex(q, k, v, visibility, tokens, compiled=False), expected, atol=1e-5, rtol=1e-5)
    assert visibility.block_mask(tokens, CPU) is visibility.block_mask(tokens, CPU)  # made once for all layers


def test_blocks_in_which_nothing_is_seen_are_left_out() -> None:
    visibility = Visibility.teacher_forced(16, 5, copies=2)
    sparsity = visibility.block_mask(112, CPU).sparsity()
    assert sparsity > 75  # per cent: a fifth of the blocks is touched


def test_who_uses_flex_attention() -> None:
    with FakeTensorMode():
        q = torch.empty(1, 2, 64, 8, device="cuda")
    assert not picks_flex(q, 16, 16)
    with flex(True):
        assert picks_flex(q, 16, 16)
        assert not picks_flex(q, 1, 1)
        assert not picks_flex(q, 16, 1)
        assert not picks_flex(torch.empty(1, 2, 64, 8), 16, 16)
        with flex(False):
            assert not picks_flex(q, 16, 16)
        with ThreadPoolExecutor(1) as pool:  # what is worked out again runs in a thread of autograd's
            assert pool.submit(picks_flex, q, 16, 16).result()
    assert not picks_flex(q, 16, 16)


def test_more_rows_than_a_kernel_takes_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **o: calls.append(len(a[0])) or real(*a, **o))
    with FakeTensorMode():
        q = torch.empty(70_000, 2, 3, 8, device="cuda", dtype=torch.bfloat16)
        assert attend_steps(q, q, q, Visibility.windowed(3, 2, 1)).shape == q.shape
    assert calls == [65_535, 4_465]


def test_flex_attention_is_tried_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert not flex_works(CPU)
    real = attention._both_ways
    monkeypatch.setattr(attention, "_both_ways", lambda device: real(CPU))
    monkeypatch.setattr(
        attention, "attend_flex", lambda q, k, v, visibility, tokens: _masked(q, k, v, visibility, tokens)
    )
    assert flex_works(cuda)
    monkeypatch.setattr(attention, "attend_flex", lambda q, k, v, *_: F.scaled_dot_product_attention(q, k, v))
    with pytest.warns(UserWarning, match="FlexAttention does not work here"):
        assert not flex_works(cuda)  # other numbers
    monkeypatch.setattr(attention, "attend_flex", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="runs under a mask: division by zero"):
        assert not flex_works(cuda)


def _masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visibility: Visibility, tokens: int) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(tokens, tokens, CPU))


@pytest.mark.gpu
def test_flex_attention_works_on_this_gpu() -> None:
    assert flex_works(torch.device("cuda"))
