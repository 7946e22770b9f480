"""Batch norm over several processes equals batch norm over the whole batch in one."""

import os
import subprocess
import sys

WORKER = r"""
import copy, torch, torch.distributed as dist
from torch import nn
from equibit.training.parallel import SharedBatchNorm

dist.init_process_group("gloo")
rank = dist.get_rank()
for momentum, affine, shape in ((0.1, True, (6, 4, 5, 3)), (None, False, (6, 4)), (0.3, True, (4, 2, 7))):
    torch.manual_seed(0)
    one = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1], momentum=momentum, affine=affine).double()
    shared = copy.deepcopy(one)
    shared.__class__ = SharedBatchNorm
    if affine:
        for p in (*one.parameters(), *shared.parameters()):
            nn.init.constant_(p, 0.7)
    for step in range(3):
        whole = (torch.randn(shape, dtype=torch.float64) + step).requires_grad_()
        grad = torch.randn(shape, dtype=torch.float64)
        half = slice(rank * shape[0] // 2, (rank + 1) * shape[0] // 2)
        mine = whole.detach()[half].clone().requires_grad_()
        expected, found = one(whole), shared(mine)
        expected.backward(grad)
        found.backward(grad[half])
        close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)  # float64: sums in another order
        close(found, expected[half])
        close(mine.grad, whole.grad[half])
        for a, b in zip(one.buffers(), shared.buffers(), strict=True):
            close(b, a)
        for a, b in zip(one.parameters(), shared.parameters(), strict=True):
            dist.all_reduce(b.grad)
            close(b.grad, a.grad)
            a.grad = b.grad = None
    one.eval(), shared.eval()
    close(shared(mine), one(mine))
print("equal", flush=True)
dist.destroy_process_group()
"""


def test_two_processes_equal_one():
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
    words += [sys.executable, "-W", "ignore", "-c", WORKER]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
