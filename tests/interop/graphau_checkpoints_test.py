# SPDX-License-Identifier: Apache-2.0
"""The GraphAU family's 27 models as torch saves them: in, scored, out, into PyTorch's model again.

Files are written and read by one process with PyTorch, by the twin with the recipe's weights: a
state_dict alone, and what a release's training leaves (DataParallel's prefix, epoch, optimizer)
with a classifier of the backbone that its training has no use for.
"""

import json
import pathlib
import subprocess

import numpy as np
import pytest
from einops import rearrange

from mdhr_jax import cli
from mdhr_jax.verify import cases

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = {case.name: case for case in cases.read(ROOT / "tests/golden/graphau")}
OTHERS = (  # without golden scores
    "megraph_bp4d_resnet18_stage1",
    "megraph_bp4d_resnet18_stage2",
    "megraph_bp4d_resnet101_stage1",
    "megraph_bp4d_swin_t_stage1",
    "megraph_bp4d_swin_s_stage1",
    "opengraph_resnet101_stage1",
    "opengraph_swin_s_stage2",
    "opengraph_swin_b_stage2",
)
QUICK = "opengraph_resnet18_stage2"
SIDE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch, torch_graphau
import torch_graphau_drawn as drawn

def save(configuration, seed, plain, published):
    model = torch_graphau.build(configuration)
    drawn.fill(model, seed)
    for name, x in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            x.fill_(5600)
    torch.save(model.state_dict(), plain)
    optimizer = torch_graphau.optimizer(model)
    vectors = dict(model.named_parameters())[f"head.{model.head.release.prefix}sc"]
    vectors.grad = torch.ones_like(vectors)
    optimizer.step()  # moments of one parameter: those of all would make the file thrice as long
    unused = "fc" if "resnet" in configuration else "head"
    left = {f"backbone.{unused}.weight": torch.ones(9, 4), f"backbone.{unused}.bias": torch.ones(9)}
    parallel = {f"module.{name}": x for name, x in (model.state_dict() | left).items()}
    whole = {"epoch": 19, "state_dict": parallel, "optimizer": optimizer.state_dict()}
    torch.save(whole, published)

def check(configuration, original, *files):
    expected = torch.load(original, weights_only=True)
    with torch.device("meta"):
        twin = torch_graphau.build(configuration)
    for file in files:
        found = torch.load(file, weights_only=True)["state_dict"]
        assert list(found) == list(expected) == list(twin.state_dict()), file
        for name, x in found.items():
            assert (x.dtype, x.shape) == (expected[name].dtype, expected[name].shape), name
            assert x.numpy().tobytes() == expected[name].numpy().tobytes(), name
        twin.load_state_dict(found, strict=True, assign=True)

for line in sys.stdin:
    name, *arguments = json.loads(line)
    {"save": save, "check": check}[name](*arguments)
    print("done", flush=True)
"""


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Not here: full-size models run longer than they compile."""


@pytest.fixture(scope="module")
def torch_side(torch_python):
    """Asks PyTorch's process, whose message after an error is on standard error."""
    command = [torch_python, "-c", SIDE, ROOT / "benchmarks"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:

        def ask(name, *arguments):
            process.stdin.write(json.dumps([name, *arguments], default=str) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield ask
        process.stdin.close()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == QUICK else pytest.mark.long)
        for name in (*GOLDEN, *OTHERS)
    ],
)
def test_official_files_come_back_as_they_were(
    torch_side, folder, one_device, evaluate, capfd, name
):
    plain, published, run = folder / "plain.pth", folder / "published.pth", folder / "run"
    back = folder / "plain-back.pth", folder / "published-back.pth"
    case = GOLDEN.get(name)
    torch_side("save", name, case.facts["base_seed"] if case else 1, plain, published)
    for source, target in ((plain, back[0]), (published, run), (run, back[1])):
        assert cli.main(["convert", str(source), str(target)]) == 0
    said = capfd.readouterr().err
    assert said.count(", 0 left over") == 2 and "0 left over, 2 of its backbone's unused" in said
    torch_side("check", name, plain, *back)
    if case:
        found = rearrange(evaluate(run, case.clips), "b 1 n -> b n")
        difference = np.abs(found - case.arrays["eval.scores"]).max()
        print(f"{name}: scores differ by at most {difference:.1e}")  # pytest -rP shows it
        assert difference <= 1e-5


def test_there_are_27():
    assert len({*GOLDEN, *OTHERS}) == 27 and QUICK in GOLDEN
