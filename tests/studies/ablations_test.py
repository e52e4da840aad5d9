# SPDX-License-Identifier: Apache-2.0
import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from mdhr_jax import cli
from mdhr_jax.configs import ablations as rows
from mdhr_jax.configs import base
from mdhr_jax.run.recipe import Recipe
from mdhr_jax.studies import ablations, compare

PAPER = pathlib.Path(__file__).parents[3] / "shared/paper_tables.json"
ROWS = {row.name: row for table in rows.TABLES.values() for row in table.rows}


def the_paper():
    if not PAPER.exists():
        pytest.skip("the paper's tables (../shared) are not here")
    return json.loads(PAPER.read_text())


def printed(table):
    return [row.paper for row in rows.TABLES[table].rows]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_row_is_a_model(row):
    config = base.get_config()
    config.update_from_flattened_dict(dict(row.overrides))
    assert Recipe.of(config).outline


def test_equal_rows_of_different_tables_are_one_training():
    settings = {}
    for table in "345":
        for row in rows.TABLES[table].rows:
            assert settings.setdefault(row.name, row.overrides) == row.overrides
    assert len(settings) == 20
    assert len({json.dumps(overrides, sort_keys=True) for overrides in settings.values()}) == 20


def test_tables_1_and_2_hold_the_papers_means():
    paper = the_paper()
    for table, key in (("1", "table1_bp4d"), ("2", "table2_disfa")):
        ours = {f"MDHR ({row.name})": row.paper for row in rows.TABLES[table].rows}
        theirs = {row["system"]: row["printed_avg"] for row in paper[key]["rows"]}
        assert ours.items() <= theirs.items()


def test_table_3_switches_the_papers_parts_on():
    wanted = the_paper()["table3_bp4d_resnet50"]
    assert printed("3") == [row["f1"] for row in wanted]
    switches = {
        "mfd": ("model.dynamics.kind", "none"),
        "afe": ("model.afe", "none"),
        "aux": ("model.auxiliary", False),
        "crm": ("model.edges", "none"),
        "tcn": ("model.temporal", False),
    }
    for row, paper in zip(rows.TABLES["3"].rows, wanted, strict=True):
        for part, (key, off) in switches.items():
            assert (row.overrides[key] != off) == bool(paper[part]), f"{row.name}: {part}"


def test_table_4_joins_all_scales_in_three_ways():
    paper = the_paper()["table4_bp4d_resnet50"]
    named = {row.overrides["model.dynamics.kind"]: row.paper for row in rows.TABLES["4"].rows}
    assert named == {
        "none": paper["baseline_backbone_afe"],
        "sum": paper["sum_all"],
        "concatenation": paper["concat_all"],
        "multiscale": paper["adaptive_weighting_all"],
    }


def test_table_5_has_the_papers_edges():
    wanted = [(row["edges"], row["aux"], row["f1"]) for row in the_paper()["table5_bp4d_resnet50"]]
    ours = [
        (row.overrides["model.edges"], row.overrides["model.auxiliary"], row.paper)
        for row in rows.TABLES["5"].rows
    ]
    assert ours == wanted


def beside_the_paper(table, done):
    summaries = compare.summarise(done, [row.name for row in table.rows])
    return ablations.beside_the_paper(table, summaries, done)


def test_ours_stands_beside_the_papers(finished_run, random_counts):
    table = rows.TABLES["5"]
    rng = np.random.default_rng(0)
    done = [
        finished_run(row.name, 0, random_counts(rng, hits))
        for row, hits in zip(table.rows, (5, 10), strict=False)
    ]
    text = beside_the_paper(table, done)
    first, second, missing = [line.split("|")[1:-1] for line in text.splitlines()[4:7]]
    assert [cell.strip() for cell in missing] == [
        table.rows[2].name,
        "64.9",
        "",
        "",
        "+0.3",
        "",
        "",
    ]
    assert [cell.strip() for cell in first[4:6]] == ["", ""]
    name, paper, ours, difference, paper_gain, gain, seeds = (cell.strip() for cell in second)
    assert (name, paper, paper_gain) == (table.rows[1].name, "64.2", "-0.4")
    assert float(seeds) == float(ours.split()[0])
    assert float(difference) == pytest.approx(float(seeds) - 64.2, abs=0.051)
    assert float(gain.split()[0]) == pytest.approx(float(seeds) - float(first[6]), abs=0.101)
    assert "Layout bp4d, data rendered, protocol last, step 8 (the last one)" in text


@pytest.mark.parametrize(("hits", "refused"), [(0, True), (15, False)])
def test_a_table_whose_first_row_learned_too_little_says_so(
    hits, refused, finished_run, random_counts
):
    table = rows.TABLES["3"]
    done = [finished_run("backbone", 0, random_counts(np.random.default_rng(0), hits))]
    assert ("Not a result" in beside_the_paper(table, done)) == refused


def test_without_data_the_command_lists_rows_and_settings(capsys):
    assert cli.main(["tables", "--table", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[1].split()[:2] == ["63.3", "backbone"] and "model.temporal=False" in lines[1]
    assert "dynamics.scales" not in lines[1]  # all rows have the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--table is missing"),
        (["--table", "6"], "--table=6 is unknown; choose from 1, 2, 3, 4, 5, forms"),
        (["--table", "3", "--data", "nowhere"], "nowhere"),
        (["--table=3", "--data=x", "--folds=0"], "--folds=0: give numbers from 1"),
        (["--table=3", "--config.modle.k=1"], "unknown config key"),
        (["--table=1", "--data=x", "--init_from=a.pth"], "a.pth: give BACKBONE=RUN|FILE"),
        (["--table=3", "--data=x", "--init_from=swin_b=a.pth"], "choose from resnet50"),
        (
            ["--table=1", "--data=x", "--config.model.init_from=a.pth"],
            "give each its own: --init_from resnet50=FILE --init_from swin_b=FILE",
        ),
        (
            ["--table=2", "--data=x", *["--init_from=swin_b=a.pth"] * 2],
            "--init_from=swin_b=a.pth: give BACKBONE=RUN|FILE, one for each backbone",
        ),
    ],
)
def test_wrong_input_is_refused(arguments, message, capsys):
    assert cli.main(["tables", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_each_backbone_starts_from_weights_of_its_own():
    config = Recipe.of(base.get_config()).flat()
    starts = ablations.parse_starts(["resnet50=imagenet.pth", "swin_b=a=b.pth"])
    (resnet, swin) = ablations.variants(rows.TABLES["1"], config, starts)
    assert resnet.overrides == {"model.backbone": "resnet50", "model.init_from": "imagenet.pth"}
    assert swin.overrides == {"model.backbone": "swin_b", "model.init_from": "a=b.pth"}
    (_, swin) = ablations.variants(rows.TABLES["2"], config, {"resnet50": "imagenet.pth"})
    assert swin.overrides == {"model.backbone": "swin_b"}
    third = ablations.variants(rows.TABLES["3"], config, {"resnet50": "imagenet.pth"})
    assert {row.overrides["model.init_from"] for row in third} == {"imagenet.pth"}


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_a_table_is_run_and_shown(config_file, tiny_config, tmp_path, capfd, monkeypatch):
    few = rows.Table("Two rows", "bp4d", rows.TABLES["3"].rows[:2])
    monkeypatch.setitem(rows.TABLES, "3", few)
    arguments = ["tables", "--table", "3", "--config", str(config_file()), "--seeds", "1"]
    arguments += ["--data", tiny_config.data, "--workdir", str(tmp_path / "runs")]
    arguments += ["--results", str(tmp_path / "results"), "--budget-steps", "2"]
    assert cli.main(arguments) == 0
    shown = capfd.readouterr().out
    assert (tmp_path / "results" / "table-3.md").read_text() in shown
    assert (tmp_path / "results" / "table-3.png").exists()
    assert "Two rows" in shown and "step 2 (" in shown
    saved = ConfigDict(json.loads((tmp_path / "runs/MFD/fold1-seed0/config.json").read_text()))
    assert saved.model.dynamics.kind == "multiscale" and saved.model.afe == "none"

    assert cli.main(arguments) == 0  # all is done
    assert "at a time" not in capfd.readouterr().out
