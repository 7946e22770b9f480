"""The selection operator: every kernel against a stable sort, on random, tied and hostile rows."""

import importlib.util
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equibit import kernels
from equibit.errors import InputError
from equibit.kernels import _core
from equibit.kernels.torch_ops import quantiles, select, select_plain, values_at_plain

LENGTHS = (1, 2, 7, 31, 33, 64, 127, 129, 145, 576, 1153)
DTYPES = (torch.float32, torch.float64)
LEVELS = (-0.75, 0.25, 1.5)
KINDS = {
    "normal": lambda x: x,
    "tied": lambda x: x.mul(2).round().div(2),
    "constant": lambda x: torch.full_like(x, -0.25),
    "zeros of both signs": lambda x: x.sign() * 0.0,
    "denormal": lambda x: x.mul(3).round() * torch.finfo(x.dtype).smallest_normal * 2**-10,
    "infinite": lambda x: torch.where(x.abs() < 0.5, x, x * torch.inf),
    "of every exponent": lambda x: x.sign() * 10 ** (x * 10),
    "far from zero": lambda x: 1000 + x * 1e-3,
    "two clusters": lambda x: torch.where(x > 0.3, 1e6 + x, x),
    "one outlier": lambda x: torch.where(x == x.max(), torch.finfo(x.dtype).max, x),
    "sorted": lambda x: x.sort(dim=1).values,
}


def ranks_of(values, magnitude=False):
    """The definition: places in a stable sort of each row, whose -0.0 are made 0.0."""
    rows = values.flatten(1)
    order = ((rows.abs() if magnitude else rows) + 0.0).argsort(dim=1, stable=True)
    return torch.empty_like(order).scatter_(1, order, torch.arange(rows.shape[1]).expand_as(order))


def by_ranks(ranks, low, middle, values):
    table = torch.tensor(LEVELS, dtype=values.dtype)
    return table[(ranks >= low).int() + (ranks >= low + middle).int()].view(values.shape)


def by_sorting(values, low, middle, magnitude=False):
    return by_ranks(ranks_of(values, magnitude), low, middle, values)


def counts_for(n):
    """(low, middle) pairs: nothing, everything, halves, a density of 0.4, a single value."""
    return sorted({(0, 0), (n, 0), (0, n), (n // 2, 0), (n // 5, n - 2 * (n // 5)), (1, 0), (n - 1, 1)})


def check_every_kind():
    """All kinds of rows through the active kernel; the number of cases."""
    cases = 0
    generator = torch.Generator().manual_seed(0)
    for n in LENGTHS:
        for dtype in DTYPES:
            normal = torch.randn(4, n, generator=generator, dtype=dtype)
            for make, magnitude in itertools.product(KINDS.values(), (False, True)):
                rows = make(normal)
                ranks = ranks_of(rows, magnitude)
                for low, middle in counts_for(n):
                    expected = by_ranks(ranks, low, middle, rows)
                    assert torch.equal(select(rows, low, middle, LEVELS, magnitude=magnitude), expected)
                    cases += 1
    return cases


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("level", kernels.available())
def test_every_level_equals_a_stable_sort(level):
    code = "import test_select; from equibit import kernels; print(kernels.active(), test_select.check_every_kind())"
    done = run_python(code, EQUIBIT_KERNEL=level)
    cases = sum(len(counts_for(n)) for n in LENGTHS) * len(DTYPES) * len(KINDS) * 2
    assert done.stdout.split() == [level, str(cases)], done.stderr


FLOATS = st.floats(width=32, allow_nan=False)


@given(
    rows=st.integers(1, 150).flatmap(lambda n: st.lists(st.lists(FLOATS, min_size=n, max_size=n), min_size=1)),
    low=st.floats(0, 1),
    middle=st.floats(0, 1),
    magnitude=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_any_rows(rows, low, middle, magnitude):
    values = torch.tensor(rows)
    low = round(low * values.shape[1])
    middle = round(middle * (values.shape[1] - low))
    expected = by_sorting(values, low, middle, magnitude)
    assert torch.equal(select(values, low, middle, LEVELS, magnitude=magnitude), expected)
    assert torch.equal(select_plain(values, low, middle, LEVELS, magnitude), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_whole_layer(dtype):
    row = torch.randn(1, 300_001, dtype=dtype)
    for rows in (row, row.mul(100).round()):
        for low, middle, magnitude in ((150_000, 0, False), (60_000, 180_001, False), (240_000, 0, True)):
            expected = by_sorting(rows, low, middle, magnitude)
            assert torch.equal(select(rows, low, middle, LEVELS, magnitude=magnitude), expected)


def test_nan_leaves_the_counts_exact():
    patterns = np.array([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32)
    for n in LENGTHS:
        values = torch.randn(6, n)
        places = torch.rand(6, n) < torch.tensor([0.1, 0.5, 1.0, 1.0, 0.9, 0.01])[:, None]
        nan = torch.from_numpy(np.random.default_rng(n).choice(patterns, (6, n)).view(np.float32))
        values = torch.where(places, nan, values)
        for low, middle in counts_for(n):
            out = select(values, low, middle)
            assert ((out == -1).sum(1) == low).all()
            assert ((out == 0).sum(1) == middle).all()


def test_denormals_keep_their_order_where_the_processor_flushes_them():
    rows = torch.tensor([[3.0, -1.0, 2.0, 0.0, -2.0, 1.0]]).mul(2.0**-140).repeat(1, 30)
    expected = by_sorting(rows, 75, 30)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU flushes no denormals")
    try:
        found = select(rows, 75, 30, LEVELS)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "memory_format"), [((6, 5, 3, 2), torch.channels_last), ((4, 3, 2, 3, 2), torch.channels_last_3d)]
)
@pytest.mark.parametrize("run", [select, lambda v, *a: select_plain(v, *a, False)])
def test_channels_last_keeps_its_format_and_the_order_of_the_index(shape, memory_format, run):
    for values in (torch.randn(shape), torch.randn(shape).round(), torch.zeros(shape)):
        stored = values.contiguous(memory_format=memory_format)
        n = values[0].numel()
        out = run(stored, n // 3, n // 4, LEVELS)
        assert torch.equal(out, by_sorting(values, n // 3, n // 4))
        assert out.stride() == stored.stride()


def test_any_other_layout_is_copied():
    values = torch.randn(9, 8, 7).round()
    for view in (values.transpose(0, 2), values[::2, 1:, ::3], values.flip(1), values[:0], values[:, :0]):
        n = view[:1].numel() // max(len(view[:1]), 1)
        assert torch.equal(select(view, n // 2, 0, LEVELS), by_sorting(view.contiguous(), n // 2, 0))


def test_the_number_of_threads_changes_nothing():
    values = torch.randn(67, 130).mul(4).round()
    expected = by_sorting(values, 40, 50)
    for threads in (1, 2, 3, 8):
        out = torch.empty_like(values)
        _core.select(values.numpy(), out.numpy(), 40, 50, LEVELS, False, 1, threads)
        assert torch.equal(out, expected)


def test_callers_on_many_threads():
    values = torch.randn(64, 300).mul(4).round()
    expected = by_sorting(values, 150, 0)
    wrong = []

    def call():
        for _ in range(50):
            out = torch.empty_like(values)
            _core.select(values.numpy(), out.numpy(), 150, 0, LEVELS, False, 1, 3)
            if not torch.equal(out, expected):
                wrong.append(out)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_selects_on_one_thread_as_a_data_loader_worker_does():
    code = """
import os, torch
from equibit.kernels.torch_ops import select
torch.set_num_threads(2)
values = torch.randn(64, 500)
first = select(values, 250)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    os._exit(0 if torch.equal(select(values, 250), first) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_python(code)
    assert done.stdout.split() == ["0"], done.stderr


def test_without_torch_the_kernel_runs_on_the_calling_thread():
    code = """
import sys; sys.modules["torch"] = None
import numpy as np
from equibit.kernels import _core
values = np.arange(640, dtype=np.float64).reshape(64, 10) % 7
out = np.empty_like(values)
_core.select(values, out, 5, 0, (-1.0, 0.0, 1.0), False, 1, 8)
print((out == -1).sum())
"""
    assert run_python(code).stdout.split() == ["320"]


# The operator


def test_opcheck():
    operator = torch.ops.equibit.select.default
    values = torch.randn(4, 3, 2, 2)
    leaves = (
        values.clone().requires_grad_(),
        values.double(),
        values.contiguous(memory_format=torch.channels_last),
        values[:, 1:],
    )
    for leaf in leaves:
        passed = torch.library.opcheck(operator, (leaf, 2, 1, list(LEVELS), True))
        assert set(passed.values()) == {"SUCCESS"}


def test_the_gradient_is_the_straight_through_estimator():
    values = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(values)
    (gradient,) = torch.autograd.grad(select(values, 3, 2, LEVELS), values, upstream)
    assert torch.equal(gradient, 1.5 * upstream)


def test_meta_tensors_have_shapes_only():
    assert select(torch.empty(5, 4, device="meta"), 2).shape == (5, 4)


@pytest.mark.parametrize("values", [torch.ones(3, 4).half(), torch.ones(3, 4).int(), torch.ones(3), torch.tensor(1.0)])
def test_what_is_not_selected_from_is_refused(values):
    with pytest.raises(InputError, match="Allowed: float32 or float64 with rows in dim 0"):
        select(values, 1)


@pytest.mark.parametrize(("low", "middle"), [(-1, 0), (0, -1), (5, 0), (3, 2)])
def test_counts_that_a_row_lacks_are_refused(low, middle):
    with pytest.raises(InputError, match=f"cannot select {low} and {middle} of 4"):
        select(torch.ones(3, 4), low, middle)


def call_core(**changes):
    values = np.ones((3, 4), np.float32)
    arguments = {"out": np.empty_like(values), "low": 1, "middle": 1, "levels": LEVELS, "magnitude": False}
    _core.select(**{"values": values, **arguments, "taps": 1, "threads": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"out": np.empty((4, 3), np.float32)}, "differ in shape"),
        ({"values": np.ones((3, 0), np.float32), "out": np.ones((3, 0), np.float32)}, "a row of 0 values"),
        ({"low": 5}, "low = 5"),
        ({"low": 2**62, "middle": 2**62}, "low = "),
        ({"low": -1}, "low = -1"),
        ({"middle": 4}, "middle = 4"),
        ({"taps": 3}, "taps = 3"),
        ({"taps": 0}, "taps = 0"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_the_binding_refuses(changes, match):
    call_core()
    with pytest.raises(InputError, match=match):
        call_core(**changes)


# Triton


def check_triton(device):
    """The Triton kernel through its launcher, a row of every kind, in both layouts; the number of cases."""
    from equibit.kernels.triton_select import select_rows, takes

    assert not takes(torch.ones(2, 3, dtype=torch.float64))
    assert not takes(torch.ones(1, 16385))
    cases = 0
    for n, taps, low, middle, magnitude in ((5, 1, 2, 0, False), (30, 3, 6, 10, False), (30, 3, 20, 0, True)):
        normal = torch.randn(1, n, generator=torch.Generator().manual_seed(n))
        values = torch.cat([make(normal) for make in KINDS.values()]).view(len(KINDS), n // taps, taps)
        rows = values.transpose(1, 2).flatten(1).to(device)
        out = torch.empty_like(rows)
        select_rows(rows, out, low, middle, LEVELS, magnitude=magnitude, taps=taps)
        found = out.view(len(KINDS), taps, n // taps).transpose(1, 2).cpu()
        assert torch.equal(found, by_sorting(values, low, middle, magnitude)), (n, low, middle, magnitude)
        cases += 1
    return cases


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernel_in_its_interpreter():
    code = "import test_select; print(test_select.check_triton('cpu'))"
    done = run_python(code, TRITON_INTERPRET="1")
    assert done.stdout.split() == ["3"], done.stderr


@pytest.mark.gpu
def test_the_operator_on_cuda_equals_the_cpu_and_never_waits():
    assert check_triton("cuda") == 3
    for n in (90, 4608, 20_000):
        values = torch.randn(7, n).mul(50).round()
        on_device = values.cuda()
        select(on_device, n // 2)  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = select(on_device, n // 2, 3, LEVELS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(out.cpu(), by_sorting(values, n // 2, 3))


def check_values_at():
    """The values at some ranks of every kind of row through the active kernel; the number of cases."""
    cases = 0
    generator = torch.Generator().manual_seed(0)
    for n in (*LENGTHS, 4096, 4097, 30_011):  # the last two are sampled
        ranks = sorted({0, n // 7, n // 2, n - 2, n - 1} - {-1})
        for dtype in DTYPES:
            normal = torch.randn(1, n, generator=generator, dtype=dtype)
            for make, magnitude in itertools.product(KINDS.values(), (False, True)):
                values = make(normal)[0]
                found = torch.ops.equibit.values_at(values, ranks, magnitude)
                ordered = np.sort(np.abs(values.numpy()) if magnitude else values.numpy())
                np.testing.assert_array_equal(found.numpy(), ordered[ranks])
                assert torch.equal(values_at_plain(values, ranks, magnitude), found)
                cases += 1
    return cases


@pytest.mark.parametrize("level", kernels.available())
def test_values_at_ranks_at_every_level(level):
    code = "import test_select; from equibit import kernels; print(kernels.active(), test_select.check_values_at())"
    done = run_python(code, EQUIBIT_KERNEL=level)
    cases = (len(LENGTHS) + 3) * len(DTYPES) * len(KINDS) * 2
    assert done.stdout.split() == [level, str(cases)], done.stderr


@pytest.mark.parametrize("shape", [(1,), (7, 5), (3, 4, 5, 6)])
def test_quantiles_of_all_values(shape):
    values, shares = torch.randn(shape, dtype=torch.float64), (0.0, 0.13, 0.5, 0.999, 1.0)
    places = torch.tensor(shares, dtype=torch.float64)
    # torch interpolates by the same formula; 1e-12 allows for its rounding of the place
    torch.testing.assert_close(quantiles(values, shares), values.quantile(places), rtol=1e-12, atol=1e-12)
    turned = values.movedim(0, -1)
    torch.testing.assert_close(quantiles(turned, shares, magnitude=True), values.abs().quantile(places))


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        (torch.zeros(0), (0.5,)),
        (torch.zeros(3, dtype=torch.int32), (0.5,)),
        (torch.zeros(3), (1.5,)),
        (torch.zeros(3), (float("nan"),)),
    ],
)
def test_bad_quantiles(values, shares):
    with pytest.raises(InputError):
        quantiles(values, shares)


def test_bad_ranks():
    for ranks, out in (([3], torch.zeros(1)), ([-1], torch.zeros(1)), ([0], torch.zeros(2))):
        with pytest.raises(InputError):
            _core.values_at(torch.zeros(3), out, ranks, False)
