# SPDX-License-Identifier: Apache-2.0
"""Weight files of the GraphAU family, narrow ones: what is said of them, and what is refused."""

import functools
import pickle
import zipfile

import jax
import numpy as np
import pytest
from flax import nnx

from mdhr_jax import cli, evaluate, facs
from mdhr_jax.configs import megraphau_bp4d_resnet50
from mdhr_jax.interop import families, files, official
from mdhr_jax.models import backbones, graphau, resnet, swin
from mdhr_jax.numerics import steps
from mdhr_jax.run import trained
from mdhr_jax.run.recipe import Recipe

pytestmark = pytest.mark.slow
WIDTH, FEATURES = 2, 4
RESNET = functools.partial(resnet.ResNet, width=WIDTH)
NARROW = {
    "resnet18": functools.partial(RESNET, block=resnet.Basic, depths=(2, 2, 2, 2)),
    "resnet50": functools.partial(RESNET, depths=(3, 4, 6, 3)),
    "swin_t": functools.partial(
        swin.Swin, width=WIDTH, depths=(2, 2, 6, 2), heads=(1, 1, 2, 2), drop_path=0.0
    ),
}
abstract_state = functools.cache(trained.abstract_state)  # of each model once: it takes a second


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """The released backbones, of the least width, are recognised."""
    for name, backbone in NARROW.items():
        monkeypatch.setitem(backbones.BACKBONES, name, backbone)
    monkeypatch.setitem(families._SWINS, (WIDTH, 6), "swin_t")
    monkeypatch.setattr(trained, "abstract_state", abstract_state)


@functools.cache
def made(layout, relations, backbone="resnet18"):
    """A release's model as an official state_dict, random numbers."""
    release = families._graphau(
        layout, graphau.Slots(backbone=backbone, features=FEATURES, relations=relations)
    )
    slots = graphau.Slots(**release.slots)
    model = nnx.eval_shape(lambda: graphau.create(layout, slots, nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    trees = dict(zip(official.PARTS, steps.split(model)[1:], strict=True))
    state = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), trees)
    return official.export(state | {"step": 7}, release.rows)


def me(stage, backbone="resnet18", layout=facs.BP4D):
    return made(layout, {1: "nearest", 2: "gated"}[stage], backbone)


def open_graph(stage):
    return me(stage, layout=facs.OPENGRAPHAU)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def without(arrays, *starts):
    return {name: array for name, array in arrays.items() if not name.startswith(starts)}


def only(arrays, *starts):
    return {name: array for name, array in arrays.items() if name.startswith(starts)}


def deeper(arrays, last, depth):
    """The third stage of a ResNet with copies of its last block."""
    block = only(arrays, f"backbone.layer3.{last}.")
    return arrays | {
        name.replace(f"layer3.{last}", f"layer3.{number}"): array
        for number in range(last + 1, depth)
        for name, array in block.items()
    }


def prefixed(prefix, arrays):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


ME, OPEN = "of bp4d, stage 2, resnet18: ", "OpenGraphAU, stage 2, resnet18: "
TABLE = "backbone.layers.0.blocks.0.attn.relative_position_index"
MASK = "backbone.layers.0.blocks.1.attn_mask"
VIT = {
    "backbone.cls_token": zeros(1, 1, 8),
    "backbone.patch_embed.proj.weight": zeros(8, 3, 16, 16),
    "backbone.blocks.0.norm1.weight": zeros(8),
}
OTHER = "whose backbone is none of resnet18, resnet50, resnet101, swin_t, swin_s, swin_b"
# What is wrong; a state_dict, or what becomes of an honest file's bytes; what is said of it.
WRONG = [
    ("an entry missing", lambda: without(me(2), "head.gnn.bnv1.weight"), ME + "missing head.gnn"),
    ("the first missing", lambda: without(me(2), "backbone.conv1"), "missing backbone.conv1.wei"),
    ("its vectors missing", lambda: without(me(2), "head.sc"), "missing head.sc;"),
    (
        "a block missing",
        lambda: without(me(2), "head.class_linears.11."),
        f"6 entries do not fit ME-GraphAU {ME}missing head.class_linears.11.fc.weight;",
    ),
    ("no edge head", lambda: without(me(2), "head.edge_fc"), "missing head.edge_fc.weight"),
    ("one left over", lambda: me(2) | {"head.extra": zeros(3)}, ME + "left over head.extra"),
    ("mis-shaped", lambda: me(2) | {"head.gnn.U1.weight": zeros(4, 5)}, "(4, 5), expected (4, 4)"),
    (
        "other vectors",
        lambda: me(2) | {"head.sc": zeros(12, 6)},
        "1 entry does not fit ME-GraphAU of bp4d, stage 2, resnet18: head.sc has shape (12, 6)",
    ),
    ("a flat vector", lambda: me(2) | {"head.sc": zeros(48)}, "head.sc has shape (48,)"),
    ("a number", lambda: me(2) | {"head.sc": zeros()}, "head.sc has shape (), expected (12, 4)"),
    (
        "wide vectors alone",
        lambda: only(me(2), "backbone") | {"head.sc": zeros(12, 10**6)},
        "86 entries do not fit ME-GraphAU of bp4d, stage 1, resnet18: missing global_linear.fc.we",
    ),
    ("float64", lambda: me(2) | {"head.sc": zeros(12, 4, dtype=float)}, "has type float64"),
    ("integers", lambda: me(2) | {"head.sc": zeros(12, 4, dtype=int)}, "has type int64, expected"),
    ("MDHR's", lambda: me(2) | {"LRM.up_fc.weight": zeros(4, 4)}, "left over LRM.up_fc.weight"),
    ("sides", lambda: me(2) | {"head.sub_sc": zeros(14, 4)}, ME + "left over head.sub_sc"),
    (
        "edges of OpenGraphAU",
        lambda: open_graph(2) | only(me(2), "head.edge_fc"),
        OPEN + "left over head.edge_fc.",
    ),
    (
        "stage 1 with stage 2",
        lambda: me(1) | only(me(2), "head.edge_extractor"),
        "head.gnn.U.bias of stage 1 and head.edge_extractor.ARM.linear_k.bias of stage 2",
    ),
    (
        "stage 2 with stage 1",
        lambda: open_graph(2) | only(open_graph(1), "head.gnn.bnv."),
        "head.gnn.bnv.bias of stage 1 and head.edge_extractor.ARM.linear_k.bias of stage 2",
    ),
    (
        "10 nodes",
        lambda: without(me(2), "head.class_linears.1") | {"head.sc": zeros(10, 4)},
        "has 10 AUs (rows of head.sc): an ME-GraphAU has 12 (BP4D) or 8 (DISFA)",
    ),
    (
        "nodes of DISFA, edges of BP4D",
        lambda: me(2) | me(1, layout=facs.DISFA) | only(me(2), "head.class_linears.0"),
        "of two stages",
    ),
    (
        "8 nodes, 144 edges",
        lambda: me(2, layout=facs.DISFA) | only(me(2), "head.edge_extractor.bn."),
        "head.edge_extractor.bn.weight has shape (144,), expected (64,)",
    ),
    ("no sides", lambda: without(open_graph(2), "head.sub_sc"), OPEN + "missing head.sub_sc"),
    (
        "6 sides",
        lambda: open_graph(2) | {"head.sub_sc": zeros(12, 4)},
        "head.sub_sc has shape (12, 4), expected (14, 4)",
    ),
    (
        "26 nodes",
        lambda: open_graph(2) | {"head.main_sc": zeros(26, 4)},
        "head.main_sc has shape (26, 4), expected (27, 4)",
    ),
    ("both releases", lambda: open_graph(2) | {"head.sc": zeros(12, 4)}, "left over head.sc"),
    (
        "OpenGraphAU's layers",
        lambda: without(me(2), "head.gnn") | only(open_graph(2), "head.gnn"),
        "missing head.gnn.U1.weight",
    ),
    (
        "ME-GraphAU's layers",
        lambda: without(open_graph(2), "head.gnn") | only(me(2), "head.gnn"),
        "left over head.gnn.",
    ),
    (
        "another table of windows",
        lambda: me(1, "swin_t") | {TABLE: me(1, "swin_t")[TABLE].T},
        f"{TABLE} is another table than that of 7x7 windows",
    ),
    (
        "another mask",
        lambda: me(1, "swin_t") | {MASK: -me(1, "swin_t")[MASK]},
        f"{MASK} is another table",
    ),
    ("no number", lambda: me(2) | {"head.sc": np.full((12, 4), np.nan, "f4")}, "not finite"),
    (
        "no count",
        lambda: me(2) | {"global_linear.bn.num_batches_tracked": np.array(-3)},
        "global_linear.bn.num_batches_tracked is no count of batches",
    ),
    ("twice", lambda: me(2) | prefixed("module", me(2)), "holds a model twice"),
    ("an average inside", lambda: me(2) | prefixed("ema", me(2)), "left over ema."),
    ("another wrapper", lambda: prefixed("student", me(2)), "its first entry is 'student."),
    ("ResNet-152", lambda: deeper(me(2, "resnet50"), 5, 36), f"{OTHER} (its third stage has 36 b"),
    ("ResNet-34", lambda: deeper(me(2), 1, 6), f"{OTHER} (its third stage has 6 blocks)"),
    ("a ViT", lambda: without(me(2), "backbone") | VIT, f"{OTHER} (its third stage has 0 blocks)"),
    ("no backbone", lambda: without(me(2), "backbone"), OTHER),
    ("MDHR's spelling", lambda: {f"B{n[1:]}": a for n, a in me(2).items()}, "its first entry is"),
    ("no head", lambda: without(me(2), "head"), "for a backbone alone use config.model.init_from"),
    ("cut off", lambda: lambda raw: raw[: len(raw) // 2], "or more; copy or download it again"),
    ("cut off early", lambda: lambda raw: raw[:700], "cut off after 700 of"),
    ("empty", lambda: lambda raw: b"", "is empty; copy or download it again"),
    ("a web page", lambda: lambda raw: b"<!doctype html>", "is a web page; download the file"),
]


@pytest.mark.parametrize(("wrong", "said"), [pytest.param(*case, id=name) for name, *case in WRONG])
def test_what_is_no_whole_model_of_a_release_is_refused_by_name(tmp_path, capsys, wrong, said):
    contents = wrong()
    damaged = callable(contents)
    # Reading a pickle, checked at every instruction, would take a second.
    file = tmp_path / f"weights.{'pth' if damaged else 'safetensors'}"
    files.write(file, me(2) if damaged else contents)
    if damaged:
        file.write_bytes(contents(file.read_bytes()))
    assert cli.main(["convert", str(file), str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mdhr convert: {file}: ") and said in line and "; " in line
    assert len(line) < 2000
    assert list(tmp_path.iterdir()) == [file]


def test_an_optimizer_alone_is_refused(tmp_path, capsys):
    file = tmp_path / "optimizer.pth"
    contents = {"epoch": 19, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(contents, protocol=2))
    assert cli.main(["convert", str(file), str(tmp_path / "run")]) == 2
    assert "holding no state_dict (names to tensors," in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (lambda: me(1), "ME-GraphAU of bp4d, stage 1, resnet18, 12 AUs; 221 entries, 0 left over"),
        (
            lambda: prefixed("model.net", me(2)),
            "ME-GraphAU of bp4d, stage 2, resnet18, 12 AUs; 263 entries, 0 left over",
        ),
        (
            lambda: (
                open_graph(2) | {"backbone.fc.weight": zeros(9, 4), "backbone.fc.bias": zeros(9)}
            ),
            "OpenGraphAU, stage 2, resnet18, 41 AUs; 367 entries, 0 left over, 2 of its backbone's "
            "unused classifier",
        ),
    ],
)
def test_a_line_says_what_a_file_is(tmp_path, capsys, contents, said):
    file = tmp_path / "weights.safetensors"
    files.write(file, contents())
    trained.load_trained(file)
    assert capsys.readouterr().err == f"{file}: {said}\n"


@pytest.mark.parametrize(
    ("stage", "said"), [(1, ""), (2, ". ME-GraphAU's training names the files of stage 2 one fold")]
)
def test_evaluation_says_that_the_fold_of_a_file_is_open(
    tmp_path, capsys, rendered_set, stage, said
):
    file = tmp_path / "MEFARG_resnet18_BP4D_fold1.safetensors"
    files.write(file, me(stage))
    evaluate.load(file, data=rendered_set.path, fold=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1].startswith(
        f"{file}: its fold is not in it; taken for one that has not learned from the test subjects "
        f"of fold 2{said}"
    )


@pytest.fixture
def second_stage(rendered_set):
    """Its training, as little as goes, and a state of it before the first step."""
    config = megraphau_bp4d_resnet50.get_config("2")
    config.data, config.image_size, config.batch_size = str(rendered_set.path), 32, 8
    config.model.backbone, config.model.features = "resnet18", FEATURES
    recipe = Recipe.of(config)
    fresh = dict(zip(official.PARTS, steps.split(recipe.create(nnx.Rngs(0)))[1:], strict=True))
    return config, jax.device_put(fresh, jax.devices()[0])


def start_from(path, config, fresh):
    config.model.init_from = str(path)
    return trained.initial_values(Recipe.of(config), fresh)


@pytest.mark.parametrize("is_run", [False, True])
def test_stage_2_starts_from_stage_1_but_its_graph(tmp_path, capsys, second_stage, is_run):
    path = tmp_path / "stage1.safetensors"
    files.write(path, me(1))
    first = trained.load_trained(path).state
    if is_run:
        assert cli.main(["convert", str(path), str(tmp_path / "run")]) == 0
        path = tmp_path / "run"
    values = start_from(path, *second_stage)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"config.model.init_from={path}: takes over backbone, static, au_features, classifier; "
        "anew: relations"
    )
    started = trained.with_values(second_stage[1], values)
    assert jax.tree.structure(started) == jax.tree.structure(second_stage[1])
    for group in official.PARTS:
        kept = {"backbone", "static", "au_features", "classifier"} & first[group].keys()
        expected = {part: first[group][part] for part in kept}
        jax.tree.map(np.testing.assert_array_equal, values[group], expected)
        assert started[group]["relations"] is second_stage[1][group]["relations"]


@pytest.mark.parametrize(
    "contents",
    [lambda: open_graph(1), lambda: me(1, layout=facs.DISFA), lambda: only(me(1), "backbone.")],
)
def test_a_start_of_other_aus_gives_its_backbone_alone(tmp_path, capsys, second_stage, contents):
    path = tmp_path / "other.safetensors"
    files.write(path, contents())
    values = start_from(path, *second_stage)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"config.model.init_from={path}: takes over backbone; anew: au_features, classifier, "
        "relations, static"
    )
    assert [values[group].keys() for group in official.PARTS] == [{"backbone"}] * 2
    started = trained.with_values(second_stage[1], values)
    assert jax.tree.structure(started) == jax.tree.structure(second_stage[1])
    first = values["params"]["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        np.moveaxis(np.asarray(first), (3, 2), (0, 1)), contents()["backbone.conv1.weight"]
    )
