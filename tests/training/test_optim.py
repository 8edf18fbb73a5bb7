"""Learning rates follow their schedule as a function of the iteration alone."""

import math

import pytest
import torch

from kpac.config import OptimizerConfig, ScheduleConfig, load_config
from kpac.errors import UserError
from kpac.models.registry import create_model
from kpac.training.optim import load_optimizer, make_optimizer, make_schedule, rate_factor


def factors(iterations: int, **settings) -> list[float]:
    factor = rate_factor(ScheduleConfig(**settings), iterations)
    return [factor(iteration) for iteration in range(iterations + 1)]


def test_cosine_warms_up_and_ends_at_its_final_rate():
    found = factors(100, name="cosine", warmup=10, final=0.1)
    assert found[0] == pytest.approx(0.1, rel=1e-3)
    assert found[50] == pytest.approx(0.55)
    assert found[100] == pytest.approx(0.1)
    assert found[25] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_constant_stays():
    assert factors(3, name="constant", warmup=2) == [0.5, 1, 1, 1]


def test_step_falls_after_each_milestone():
    assert factors(6, name="step", milestones=[2, 5]) == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert factors(2, name="step", milestones=[1], factor=0.1) == [1, 0.1, 0.1]


def test_cyclic_is_a_cosine_in_each_period():
    """A first period that stays and a second one that falls: the shape that Restormer trains with."""
    found = factors(12, name="cyclic", periods=[4, 6], finals=[1.0, 0.1])
    assert found[:5] == [1] * 5
    assert found[7] == pytest.approx(0.55)
    assert found[10:] == [0.1] * 3
    assert factors(4, name="cyclic", periods=[2, 2], finals=[0, 0])[:4] == pytest.approx([1, 0.5, 1, 0.5])


def test_schedule_that_starts_late_gives_the_same_rates():
    parameter = torch.nn.Parameter(torch.zeros(1))
    config = ScheduleConfig(name="cyclic", periods=[4, 6], finals=[0.5, 0.1])
    whole = make_schedule(torch.optim.SGD([parameter], lr=1.0), config, 10)
    rates = []
    for _ in range(10):
        rates.append(whole.get_last_lr()[0])
        whole.optimizer.step()
        whole.step()
    late = make_schedule(torch.optim.SGD([parameter], lr=1.0), config, 10)
    state = whole.state_dict() | {"last_epoch": 5}
    late.load_state_dict(state)
    late.optimizer.step()
    late.step()
    assert late.get_last_lr()[0] == pytest.approx(rates[6])


def test_adamw_takes_weight_away_and_adam_does_not():
    for name, decay, expected in (("adam", 0.0, 1.0), ("adamw", 0.5, 0.95)):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(model.weight)
        optimizer = make_optimizer(model, OptimizerConfig(name=name, learning_rate=0.1, weight_decay=decay))
        model.weight.grad, model.bias.grad = torch.zeros(1, 1), torch.zeros(1)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.schedule={name: step}", r"the schedule step needs 'train.schedule.milestones'"),
        ("train.schedule={name: step, milestones: [5, 3]}", r"'train.schedule.milestones' should increase"),
        ("train.schedule={name: cosine, milestones: [5]}", r"'train.schedule.milestones' belongs to the schedule step"),
        ("train.schedule={name: cyclic, periods: [5]}", r"'train.schedule.periods' and 'train.schedule.finals'"),
        ("train.schedule={name: setp}", r"train.schedule.name"),
        ("train.optimizer.weight_decay=0.1", r"'train.optimizer.weight_decay' is for adamw, the optimizer is adam"),
        ("train.optimizer.weight_decy=0.1", r"did you mean 'train.optimizer.weight_decay'"),
    ],
)
def test_mistakes_are_one_line(config_file, override, words):
    with pytest.raises(UserError, match=words) as refusal:
        load_config(config_file, [override])
    assert "\n" not in str(refusal.value)


def test_file_that_names_another_schedule_drops_its_parents_keys(tmp_path, config_file):
    (tmp_path / "parent.yaml").write_text(
        f"extends: {config_file}\ntrain: {{schedule: {{name: step, milestones: [5]}}}}\n"
    )
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ntrain: {schedule: {name: cosine, final: 0.1}}\n")
    schedule = load_config(tmp_path / "child.yaml").train.schedule
    assert (schedule.name, schedule.milestones, schedule.final) == ("cosine", None, 0.1)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("kpac_2level", width=4, blocks=1, init="he")


def grouped(**groups) -> OptimizerConfig:
    return OptimizerConfig.model_validate(
        {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "groups": groups}
    )


ATTENTION = {"parameters": ["*attention*"], "learning_rate_scale": 0.1, "weight_decay": 0}


def test_group_has_its_own_rate_and_decay_under_one_schedule():
    model = network()
    optimizer = make_optimizer(model, grouped(attention=ATTENTION))
    schedule = make_schedule(optimizer, ScheduleConfig(name="step", milestones=[1], factor=0.5), 2)
    rest, attention = optimizer.param_groups
    assert attention["param_names"] == [name for name, _ in model.named_parameters() if "attention" in name]
    assert len(rest["params"]) + len(attention["params"]) == len(list(model.parameters()))
    assert (attention["weight_decay"], rest["weight_decay"]) == (0, 0.1)
    for rates in ((1e-3, 1e-4), (5e-4, 5e-5)):
        assert (rest["lr"], attention["lr"]) == pytest.approx(rates)
        optimizer.step()
        schedule.step()


def test_group_with_rate_zero_is_frozen():
    model = network()
    optimizer = make_optimizer(model, grouped(attention={**ATTENTION, "learning_rate_scale": 0}))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("attention" in name)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            {"attention": {"parameters": ["*atention*"]}},
            r"groups.attention.parameters: \*atention\* matches no parameter",
        ),
        (
            {"all": {"parameters": ["blocks.*"]}, "attention": ATTENTION},
            "groups.attention.parameters: 'blocks.0.scale_attention.features.0.weight' is in the group 'all' already",
        ),
    ],
)
def test_group_without_parameters_and_parameter_in_two_groups_are_named(groups, words):
    with pytest.raises(UserError, match=words):
        make_optimizer(network(), grouped(**groups))


def test_decay_of_a_group_is_of_adamw_alone(config_file):
    overrides = ["train.optimizer.groups={a: {parameters: ['*'], weight_decay: 0.1}}"]
    with pytest.raises(UserError, match=r"'train.optimizer.groups.a.weight_decay' is for adamw, the optimizer is adam"):
        load_config(config_file, overrides)


def test_moments_find_their_parameters_when_the_groups_change():
    model = network()
    before = make_optimizer(model, grouped())
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    before.step()
    after = make_optimizer(model, grouped(attention=ATTENTION))
    load_optimizer(after, before.state_dict())
    for parameter in model.parameters():
        assert torch.equal(after.state[parameter]["exp_avg"], before.state[parameter]["exp_avg"])
    assert after.param_groups[1]["lr"] == pytest.approx(1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("back", [False, True], ids=["to channels-last", "from channels-last"])
def test_moments_follow_the_memory_layout_of_the_parameters(fused, back):
    """Fused kernels pair a parameter's values with its moments' by their places in memory."""
    layouts = [torch.contiguous_format, torch.channels_last]
    first, second = layouts[::-1] if back else layouts
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def make(layout: torch.memory_format) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4, 3).to(memory_format=layout)
        return model, make_optimizer(model, OptimizerConfig(learning_rate=0.1), fused)

    def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
        for _ in range(steps):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
        return model.weight.detach()

    whole = train(*make(first), steps=8)
    model, optimizer = make(first)
    train(model, optimizer, steps=4)
    resumed, fresh = make(second)
    resumed.load_state_dict(model.state_dict())
    load_optimizer(fresh, optimizer.state_dict())
    assert fresh.state[resumed.weight]["exp_avg"].stride() == resumed.weight.stride()
    torch.testing.assert_close(train(resumed, fresh, steps=4), whole, atol=1e-5, rtol=0)


def test_null_takes_a_group_of_the_extended_file_away(config_file, tmp_path):
    parent = tmp_path / "parent.yaml"
    parent.write_text(f"extends: {config_file}\ntrain: {{optimizer: {{groups: {{attention: {{parameters: [x]}}}}}}}}\n")
    config = load_config(parent, ["train.optimizer.groups.attention=null"]).train.optimizer
    assert len(make_optimizer(network(), config).param_groups) == 1
