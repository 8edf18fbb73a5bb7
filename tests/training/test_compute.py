"""Precision, memory layout, accumulation and skipped steps change the cost of a step, not what it means."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from kpac.config import ComputeConfig, OptimizerConfig, load_config
from kpac.distributed import Ranks
from kpac.errors import UserError
from kpac.models.registry import create_model, resolve_model
from kpac.training.compute import Compute
from kpac.training.optim import make_optimizer
from kpac.training.trainer import Trainer

CPU = torch.device("cpu")


def weights(config_file: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """After three steps with a constant learning rate."""
    config = resolve_model(load_config(config_file, ["train.iterations=3", "train.batch_size=4", *overrides]))
    trainer = Trainer(config, Ranks(0, 1, CPU))
    for batch in trainer.compute.batches(trainer.data.batches(0, 0, pinned=False)):
        trainer.step(batch)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


class Operations(TorchDispatchMode):
    """Counts what is dispatched inside, and the casts among it."""

    def __init__(self):
        super().__init__()
        self.count = self.casts = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.count += 1
        if operation is torch.ops.aten._to_copy.default:
            self.casts += args[0].is_floating_point() and args[0].dtype is not result.dtype
        return result


@pytest.fixture
def plain(config_file) -> dict[str, torch.Tensor]:
    return weights(config_file)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize(
    "override",
    [
        "train.accumulate=2",
        "train.accumulate=4",
        "train.compute.channels_last=true",
        "train.compute.fused_optimizer=true",
    ],
)
def test_step_is_the_same_in_parts_in_another_layout_and_fused(config_file, plain, override):
    # Sums in another order, through three steps of Adam at rates up to 1.2e-4: a weight moves by 2e-4 at most.
    assert largest_difference(plain, weights(config_file, override)) < 2e-6
    assert largest_difference(plain, weights(config_file, "seed=1")) > 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_comes_close_and_is_used(config_file, plain, precision):
    lower = weights(config_file, f"train.compute.precision={precision}")
    assert all(value.dtype == torch.float32 for value in lower.values())
    assert 0 < largest_difference(plain, lower) < 5e-4


@pytest.mark.slow
def test_compiled_step_is_the_same(config_file, plain):
    assert largest_difference(plain, weights(config_file, "train.compute.compile=true")) < 2e-6


def test_auto_precision_is_float32_on_a_cpu():
    described = Compute(ComputeConfig(), CPU).describe()
    assert described == {
        "precision": "float32", "tf32": False, "channels_last": False, "compile": False, "cuda_graphs": False,
        "cudnn_benchmark": False, "deterministic": False, "accelerate": True, "fused_optimizer": True,
        "prefetch": False,
    }  # fmt: skip


def test_threads_are_pytorchs_unless_given():
    before = torch.get_num_threads()
    try:
        for threads in (before + 1, None):
            Compute(ComputeConfig(threads=threads), CPU)
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("settings", [{}, {"fused_optimizer": False}, {"precision": "float16"}])
def test_step_with_a_gradient_that_is_not_finite_changes_nothing(settings):
    compute = Compute(ComputeConfig(**settings), CPU)
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=compute.fused)
    compute.backward(layer(torch.ones(3)).sum())
    assert compute.update(optimizer, 0.5).isfinite()
    before = [value.clone() for value in (layer.weight, *optimizer.state[layer.weight].values())]
    for loss in (torch.tensor(torch.inf), torch.tensor(torch.nan)):
        compute.backward(layer(torch.ones(3)).sum() * 0 + loss)  # finite gradients of a loss that is not
        assert not compute.update(optimizer, 0.5).isfinite()
    after = [layer.weight, *optimizer.state[layer.weight].values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_long_gradients_are_clipped_to_the_norm_and_logged_as_they_were():
    compute = Compute(ComputeConfig(fused_optimizer=False), CPU)
    layer = nn.Linear(3, 1, bias=False)
    start = layer.weight.detach().clone()
    compute.backward(layer(torch.tensor([3.0, 0.0, 4.0])).sum())
    norm = compute.update(torch.optim.SGD(layer.parameters(), lr=1.0), longest=0.5)
    assert norm.item() == pytest.approx(5.0)
    assert (layer.weight - start).norm().item() == pytest.approx(0.5, rel=1e-5)


@pytest.fixture
def settings_as_they_were():
    """`train.compute` sets switches of the whole process."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    yield
    cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("settings_as_they_were")
@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_training_chooses_no_algorithm_by_the_clock(deterministic, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gpu = torch.device("cuda")  # nothing is placed there
    compute = Compute(ComputeConfig(precision="float32", deterministic=deterministic), gpu)
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is deterministic
    assert compute.describe()["deterministic"] is deterministic
    compute.check_losses({"l1": 1.0})
    if deterministic:
        with pytest.raises(UserError, match=r"the perceptual loss has no deterministic gradient on a GPU; leave it"):
            compute.check_losses({"l1": 1.0, "perceptual": 0.1})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("cuda_graphs: true", "train.compute.cuda_graphs' replays the compiled network; set 'train.compute.compile'"),
        ("{deterministic: true, cudnn_benchmark: true}", "cudnn_benchmark' may choose another algorithm in each"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config_file, words, line):
    key, value = ("train.compute", words) if words[0] == "{" else ("train.compute", f"{{{words}}}")
    with pytest.raises(UserError, match=line):
        load_config(config_file, [f"{key}={value}"])


@pytest.mark.usefixtures("settings_as_they_were")
def test_every_crop_size_is_compiled_for_itself(monkeypatch):
    counter = CompileCounter()
    given = []

    def compile_with_counter(model: nn.Module, **options: object) -> nn.Module:
        given.append(options)
        return compiled(model, backend=counter, dynamic=options["dynamic"])

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", compile_with_counter)
    network = Compute(ComputeConfig(compile=True), CPU).compile(nn.Conv2d(3, 3, 3))
    sizes = range(8, 20)  # more than the eight that PyTorch compiles by default
    for size in [*sizes, *sizes]:
        network(torch.zeros(1, 3, size, size))
    assert counter.frame_count == len(sizes)
    assert given == [{"dynamic": False}]


def test_gradients_of_cuda_graphs_stay_in_memory_of_their_own(monkeypatch):
    """The next replay of a graph overwrites its outputs, so they must be added to gradients, not become them."""
    given, steps = [], []
    monkeypatch.setattr(torch, "compile", lambda model, **options: (given.append(options), model)[1])
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    compute = Compute(ComputeConfig(compile=True, cuda_graphs=True, precision="float32"), CPU)
    compute.cuda_graphs = True  # of a GPU
    layer = nn.Linear(3, 1)
    network = compute.compile(layer)
    kept = [parameter.grad for parameter in layer.parameters()]
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    before = layer.weight.detach().clone()
    for _ in range(2):
        for _ in range(2):
            compute.backward(network(torch.ones(1, 3)).sum() / 2)
        assert layer.weight.grad.tolist() == [[1, 1, 1]]
        compute.update(optimizer, longest=10)
    assert all(parameter.grad is gradient for parameter, gradient in zip(layer.parameters(), kept, strict=True))
    assert not torch.equal(layer.weight, before)
    assert given == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert len(steps) == 4


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_network_compiles_as_one_graph(name):
    torch._dynamo.reset()
    model = create_model(name, width=4, blocks=1)
    explained = torch._dynamo.explain(model)(torch.rand(1, 3 * len(model.views), 32, 32))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_step_makes_no_casts_but_those_of_autocast(precision):
    """float32 casts nothing; bfloat16 each parameter and each gradient once, the output, and the output's gradient."""
    compute = Compute(ComputeConfig(precision=precision, channels_last=True, accelerate=False), CPU)
    model = compute.place(create_model("kpac_2level", width=4, blocks=2))
    optimizer = make_optimizer(model, OptimizerConfig(), fused=True)
    views = torch.rand(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with Operations() as operations:
        with compute.autocast():
            output = model(views)
        compute.backward((output.float() - views).abs().mean())
        compute.update(optimizer, longest=0.5)
    assert operations.casts == (2 * len(list(model.parameters())) + 2 if precision == "bfloat16" else 0)
