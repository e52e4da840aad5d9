# SPDX-License-Identifier: Apache-2.0
"""GraphAU's PyTorch twin has the official names and agrees with the golden vectors."""

import json
import pathlib

import numpy as np
import pytest

from mdhr_jax.verify import golden, verdict
from mdhr_jax.verify import graphau as within

ROOT = pathlib.Path(__file__).parents[1]
OFFICIAL = ROOT.parent / "shared/reference/graphau/NAMES.json"
VECTORS = ROOT / "tests/golden/graphau"
QUICK = ("megraph_bp4d_resnet50_stage2", "opengraph_resnet18_stage2")
LONG = (
    "megraph_bp4d_resnet101_stage2",
    "megraph_bp4d_resnet50_stage1",
    "megraph_bp4d_swin_b_stage1",
    "megraph_bp4d_swin_b_stage2",
    "megraph_bp4d_swin_s_stage2",
    "megraph_bp4d_swin_t_stage2",
    "megraph_disfa_resnet50_stage1",
    "megraph_disfa_resnet50_stage2",
    "megraph_disfa_swin_b_stage1",
    "megraph_disfa_swin_b_stage2",
    "opengraph_resnet18_stage1",
    "opengraph_resnet50_stage1",
    "opengraph_resnet50_stage2",
    "opengraph_swin_b_stage1",
    "opengraph_swin_s_stage1",
    "opengraph_swin_t_stage1",
    "opengraph_swin_t_stage2",
)
EARLY = ("s1", "s2", "s3", "s4", "bb", "global")
UNIT, LOSS_GRADIENT = 1e-5, 1e-6  # to the largest

NAMES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch, torch_graphau
for configuration, expected in json.load(open(sys.argv[2])).items():
    with torch.device("meta"):
        found = torch_graphau.build(configuration).state_dict()
    found = [[n, list(x.shape), str(x.dtype).removeprefix("torch.")] for n, x in found.items()]
    assert found == expected, configuration
"""

# Every stage, losses, gradients and running statistics, sampled but for small ones.
GOLDEN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy, torch, torch_graphau, torch_mdhr
import torch_graphau_drawn as drawn
from mdhr_jax.verify import golden

facts, arrays = json.load(open(sys.argv[2] + ".json")), numpy.load(sys.argv[2] + ".npz")
model = torch_graphau.build(facts["config"])
drawn.fill(model, facts["base_seed"])
for module in model.modules():
    if isinstance(module, torch_mdhr.DropPath):
        module.rate = 0.0
maps = {}
for number, stage in enumerate(model.backbone.stages, start=1):
    def keep(module, inputs, output, name=f"s{number}"):
        maps[name] = output
    stage.register_forward_hook(keep)
pictures = torch.from_numpy(drawn.pictures(facts["B"], facts["input_seed"]))
found = {}

def take(mode, outputs):
    for name, x in (maps | outputs).items():
        x, key = x.detach().numpy(), f"{mode}.{name}"
        if key in arrays:
            found[key] = x
        elif key + ".stat" in arrays:
            found[key + ".sub"] = golden.sample(x, facts["sub"])
            wide = x.astype(numpy.float64)
            moments = wide.mean(), wide.std(), wide.min(), wide.max(), numpy.linalg.norm(wide)
            found[key + ".stat"] = numpy.array(moments)

with torch.no_grad():
    take("eval", model.eval()(pictures))
if "train.labels" in arrays:
    outputs = model.train()(pictures)
    labels = torch.from_numpy(arrays["train.labels"])
    weights = torch.from_numpy(arrays["class_weight"])
    losses = torch_graphau.loss(outputs, labels, weights, facts.get("lam", 0.0))
    losses["loss"].backward()
    take("train", outputs)
    found |= {f"loss.{name}": x.item() for name, x in losses.items()}
    for name, p in model.named_parameters():
        found[f"norm.{name}"] = p.grad.double().norm().item()
        found[f"train.grad.{name}.sub"] = golden.sample(p.grad.numpy(), facts["grad_sub"])
    running = {f"train.bn.{n}": x.numpy() for n, x in model.named_buffers() if "running" in n}
    found |= {key: x for key, x in running.items() if key in arrays}
numpy.savez("found.npz", **found)
"""

# Whole heads on a few tokens, the graph where nodes tie, losses and their gradients.
SMALL = """
import dataclasses, sys
sys.path.insert(0, sys.argv[1])
import numpy, torch, torch_graphau
import torch_graphau_drawn as drawn
from mdhr_jax.verify import golden

units, cases = numpy.load(sys.argv[2] + "/units.npz"), numpy.load(sys.argv[2] + "/loss.npz")
me, opengraph = torch_graphau.RELEASES["megraph_bp4d"], torch_graphau.RELEASES["opengraph"]
six, four = (dataclasses.replace(me, nodes=n, neighbours=3) for n in (6, 4))
heads = {
    "me1_dots": torch_graphau.ANFL(six, 8, "dots"),
    "me1_cosine": torch_graphau.ANFL(six, 8, "cosine"),
    "me1_l1": torch_graphau.ANFL(six, 8, "manhattan"),
    "me2": torch_graphau.MEFL(four, 8),
    "og1_dots": torch_graphau.ANFL(opengraph, 8, "dots"),
    "og1_l1": torch_graphau.ANFL(opengraph, 8, "euclidean"),
    "og1_l2": torch_graphau.ANFL(opengraph, 8, "manhattan"),
    "og2": torch_graphau.MEFL(opengraph, 8),
}
seeds = {"me1": 11, "me2": 12, "og1": 13, "og2": 14}
found = {}

def constants(seed, x):
    draw = numpy.random.RandomState(seed).standard_normal(x.shape)
    return torch.from_numpy(draw.astype(numpy.float32))

for case, head in heads.items():
    drawn.fill(head, 1, "head.", golden.UNIT_GAINS)
    x, seed = torch.from_numpy(units[case + ".x"]), seeds[case[:3]]
    for mode in ("eval", "train"):
        outputs = head.train(mode == "train")(x)
        found |= {f"{case}.{mode}.{name}": y.detach().numpy() for name, y in outputs.items()}
    total = (outputs["scores"] * constants(seed + 1, outputs["scores"])).sum()
    if "edge_logits" in outputs:
        total = total + (outputs["edge_logits"] * constants(seed + 2, outputs["edge_logits"])).sum()
    total.backward()
    for name, p in head.named_parameters():
        found[f"{case}.grad_norm.{name}"] = p.grad.double().norm().item()
    found |= {f"{case}.bn.{name}": y.numpy() for name, y in head.named_buffers()}
graph = torch_graphau.NearestGraph(5, 4, 2, "dots").graph(torch.from_numpy(units["ties.x"]))
found |= {"ties.adj": graph[1].numpy(), "ties.norm_adj": graph[2].numpy()}
numpy.savez("units.npz", **found)

losses = {}
for case in sorted({key.split(".")[0] for key in cases} - {"edge", "sam"}):
    x = torch.from_numpy(cases[case + ".x"]).requires_grad_()
    weights = torch.from_numpy(cases.get(case + ".weight", numpy.ones(x.shape[1])))
    loss = torch_graphau.loss({"scores": x}, torch.from_numpy(cases[case + ".y"]), weights, 0.0)
    loss["wa"].backward()
    losses |= {case + ".loss": loss["wa"].item(), case + ".grad": x.grad.numpy()}
x, y = torch.from_numpy(cases["edge.logits"]).requires_grad_(), torch.from_numpy(cases["edge.y"])
loss = torch_graphau.loss({"scores": y, "edge_logits": x}, y, torch.ones(y.shape[1]), 1.0)
loss["edge"].backward()
losses |= {"edge.loss": loss["edge"].item(), "edge.grad": x.grad.numpy()}
numpy.savez("loss.npz", **losses)
"""

# The programs, from what the recipe gives: a step that changes nothing, and one that does.
TRAINING = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
import numpy, torch_graphau_speed
import torch_graphau_drawn as drawn

facts, arrays = json.load(open(sys.argv[2] + ".json")), numpy.load(sys.argv[2] + ".npz")
network = torch_graphau_speed.model(facts["config"])
pictures = drawn.pictures(facts["B"], facts["input_seed"]).transpose(0, 2, 3, 1)
numpy.savez(
    "given.npz",
    release="opengraph",
    backbone=facts["backbone"],
    stage=facts["stage"],
    features=network.global_linear.fc.out_features,
    edge_weight=0.0,
    class_weights=arrays["class_weight"],
    pictures=numpy.stack([pictures] * 2),
    labels=numpy.stack([arrays["train.labels"]] * 2),
    rates=[0.0, 1e-4],
    **{f"state.{name}": x.numpy() for name, x in network.state_dict().items()},
)
sys.argv = ["torch_graphau_training.py", "given.npz", "after.npz", "float64"]
runpy.run_module("torch_graphau_training", run_name="__main__")
"""
SPEED = """
import io, runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv = ["torch_graphau_speed.py", *sys.argv[2:]]
asked = '{"name": "%s", "windows": %d, "seconds": 0.1}'
sys.stdin = io.StringIO("\\n".join((asked % ("check", 0), asked % ("frames", 2))))
runpy.run_module("torch_graphau_speed", run_name="__main__")
"""


def read(configuration):
    """Facts and arrays of a golden configuration."""
    case = VECTORS / configuration
    facts = json.loads(pathlib.Path(f"{case}.json").read_text())
    return facts, dict(np.load(f"{case}.npz"))


def passed(checks):
    failed = [str(check) for check in checks if not check.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official names are in ../shared")
def test_the_twin_has_the_official_names(run_torch):
    run_torch(NAMES, ROOT / "benchmarks", OFFICIAL)


def stage_checks(found, arrays, swin):
    """Stages of evaluation and training, in standard deviations of the golden ones."""
    for key, stored in arrays.items():
        mode, name, *part = key.split(".")
        tolerance = within.STAGES[name][2 * (mode == "train") + swin]
        if part != ["stat"]:
            std = arrays[f"{mode}.{name}.stat"][1] if part else stored.std()
            yield verdict.absolute(key, found[key] / std, stored / std, tolerance)
            continue
        statistic = within.STATISTIC[name in EARLY]
        std, ours = stored[1], found[key]
        yield verdict.absolute(f"{key} mean, std", ours[:2] / std, stored[:2] / std, statistic)
        yield verdict.absolute(f"{key} min, max", ours[2:4] / std, stored[2:4] / std, tolerance)
        yield verdict.relative(f"{key} L2 norm", ours[4], stored[4], statistic)


def training_checks(found, arrays, facts, swin):
    """Losses, gradients and running statistics."""
    expected = facts["train_loss"]
    yield verdict.absolute("loss", found["loss.loss"], expected["total"], within.LOSS)
    yield verdict.absolute("WA", found["loss.wa"], expected["wa"], within.LOSS)
    if expected["edge"] is not None:
        yield verdict.absolute("edge CE", found["loss.edge"], expected["edge"], within.EDGE_LOSS)
    names = facts["train_grad_names"]
    norms = {key.removeprefix("norm."): x for key, x in found.items() if key.startswith("norm.")}
    yield verdict.exact("gradient names", list(norms), names)
    stored = dict(zip(names, arrays["train.grad_norms"], strict=True))
    total, golden_total = np.linalg.norm(list(norms.values())), facts["train_global_grad_norm"]
    yield verdict.relative("global gradient norm", total, golden_total, within.GLOBAL_NORM[swin])
    unsure = {*facts["train_structurally_zero_grads"], *facts["noisy_grad_params"]}
    for name in names:
        if name not in unsure:
            low = name in facts["recommended_grad_params"]
            tolerance = (within.PARAMETER_NORM if low else within.ANY_NORM)[swin]
            yield verdict.relative(f"norm {name}", norms[name], stored[name], tolerance)
    for key, values in arrays.items():
        if key.startswith("train.grad."):
            tolerance = (within.HEAD_ENTRY if ".head." in key else within.DEEP_ENTRY)[swin]
            yield verdict.to_largest(key, found[key], values, tolerance)
        if key.startswith("train.bn."):
            tolerance = within.RUNNING_MEAN if key.endswith("mean") else within.RUNNING_VAR
            yield verdict.absolute(key, found[key], values, tolerance)


@pytest.mark.parametrize(
    "configuration",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in QUICK),
        *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
    ],
)
def test_the_twin_passes_the_golden_vectors(run_torch, tmp_path, configuration):
    run_torch(GOLDEN, ROOT / "benchmarks", VECTORS / configuration)
    found = dict(np.load(tmp_path / "found.npz"))
    facts, arrays = read(configuration)
    swin = facts["backbone"].startswith("swin")
    apart = ("train.grad", "train.bn.", "train.labels", "class_weight", "eval.scores_f64")
    stages = {key: x for key, x in arrays.items() if not key.startswith(apart)}
    passed(stage_checks(found, stages, swin))
    if "train.labels" in arrays:
        passed(training_checks(found, arrays, facts, swin))


def small_checks(units, losses, golden_units, golden_losses):
    for key, stored in golden_units.items():
        if key.endswith(".x"):
            continue
        if key.endswith(".sub"):
            ours = golden.sample(units[key.removesuffix(".sub")], len(stored))
            yield verdict.to_largest(key, ours, stored, UNIT)
        elif "grad_norm" in key and stored < UNIT:  # zero but for rounding
            yield verdict.absolute(key, units[key], 0.0, UNIT)
        elif key.endswith("adj"):
            yield verdict.exact(key, units[key] != 0, stored != 0)
            yield verdict.to_largest(key, units[key], stored, UNIT)
        else:
            yield verdict.to_largest(key, units[key], stored, UNIT)
    for key, ours in losses.items():
        if key.endswith("loss"):
            yield verdict.absolute(key, ours, golden_losses[key], within.LOSS)
        else:
            yield verdict.to_largest(key, ours, golden_losses[key], LOSS_GRADIENT)


@pytest.mark.slow
def test_heads_and_losses_are_the_golden_ones(run_torch, tmp_path):
    run_torch(SMALL, ROOT / "benchmarks", VECTORS)
    files = [folder / f"{name}.npz" for folder in (tmp_path, VECTORS) for name in ("units", "loss")]
    passed(small_checks(*(dict(np.load(file)) for file in files)))


@pytest.mark.long
def test_steps_in_float64_begin_at_the_golden_loss(run_torch, tmp_path):
    configuration = "opengraph_resnet18_stage1"
    run_torch(TRAINING, ROOT / "benchmarks", VECTORS / configuration)
    given, after = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("given", "after"))
    golden_loss = read(configuration)[0]["train_loss_f64"]["total"]
    np.testing.assert_allclose(after["loss"], golden_loss, rtol=0, atol=1e-9)
    # Twice the same gradient: AdamW's change is the rate, but for what weight decay takes.
    before, then = (arrays["state.head.gnn.V.weight"] for arrays in (given, after))
    change = np.abs(then - before + 5e-8 * before)
    np.testing.assert_allclose(change.max(), 1e-4, rtol=1e-5)
    np.testing.assert_allclose(np.median(change), 1e-4, rtol=1e-3)


@pytest.mark.long
def test_what_is_timed_has_the_golden_scores(run_torch):
    facts, arrays = read(QUICK[1])
    batch = "--frames", facts["B"], "--seed", facts["input_seed"], "--threads", 1
    lines = run_torch(SPEED, ROOT / "benchmarks", QUICK[1], *batch).splitlines()
    check, seconds = (json.loads(line)["answer"] for line in lines)
    np.testing.assert_allclose(check["scores"], arrays["eval.scores"], rtol=0, atol=1e-5)
    assert len(seconds) == 2 and min(seconds) > 0
