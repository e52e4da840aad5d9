# SPDX-License-Identifier: Apache-2.0
"""`--config`: an installed configuration by name, or a user's own file."""

import pytest

from mdhr_jax import cli, train
from mdhr_jax.commands import flags
from mdhr_jax.run import config_check


@pytest.fixture
def trained(monkeypatch):
    """Gives the configuration with which `mdhr train` would train."""

    def call(*arguments):
        configs = []
        monkeypatch.setattr(train, "train", lambda config, workdir: configs.append(config))
        assert cli.main(["train", "--workdir", "w", *arguments]) == 0
        return configs[0]

    return call


@pytest.mark.parametrize("name", flags.CONFIGS)
def test_every_installed_configuration_is_known_by_its_name(name, trained):
    config = trained("--config", name, "--config.model.features=24", "--config.seed", "7")
    assert (config.model.features, config.seed) == (24, 7)
    assert trained(f"--config={name}", "--config.seed=7", "--config.model.features=24") == config
    config_check.check(config.to_dict())


def test_the_papers_configurations_are_installed():
    papers = {f"{data}_{net}" for data in ("bp4d", "disfa") for net in ("resnet50", "swinb")}
    assert papers | {"base", "quickstart"} <= flags.CONFIGS.keys()
    assert "ablations" not in flags.CONFIGS  # rows of tables, no configuration


@pytest.mark.parametrize("arguments", [["--config", "{}"], ["--config={}", "--config.seed=4"]])
@pytest.mark.parametrize("wrong", ["resnet50", "gone/quickstart.py", "."])
def test_another_name_is_refused_with_those_that_there_are(wrong, arguments, capsys):
    arguments = [argument.format(wrong) for argument in arguments]
    assert cli.main(["train", "--workdir", "w", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"mdhr train: --config={wrong}: there is no such file; give one, or a name: "
        "ablations_narrow, base, bp4d_resnet50, bp4d_swinb, disfa_resnet50, disfa_swinb, "
        "graphau, megraphau_bp4d_resnet50, megraphau_bp4d_swinb, megraphau_disfa_resnet50, "
        "megraphau_disfa_swinb, quickstart, twin"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quickstart:4", "TypeError: get_config() takes 0 positional arguments but 1 was given"),
        ("graphau:3", "ValueError: stage '3': a GraphAU has stages 1 and 2, such as NAME:2"),
    ],
)
def test_what_a_configuration_does_not_take_is_said_in_a_line(name, said, capsys):
    assert cli.main(["train", "--workdir", "w", f"--config={name}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{name.replace(':', '.py:')}: {said}")


OWN = """
from mdhr_jax.configs import base


def get_config(seed="77"):
    config = base.get_config()
    config.seed = int(seed)
    return config
"""


def test_a_file_is_the_users_own_whatever_its_name(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.py").write_text(OWN)
    for file in ("./quickstart.py", "quickstart.py", tmp_path / "quickstart.py"):
        assert trained("--config", str(file)).seed == 77
    assert trained("--config=quickstart.py:5").seed == 5
    assert trained("--config=quickstart").seed == 0


def test_a_file_that_reads_what_is_not_there_says_so(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text("def get_config():\n    return open('gone.json')\n")
    assert cli.main(["train", "--config", str(file), "--workdir", "w"]) == 2
    assert capsys.readouterr().err == (
        f"mdhr train: --config={file}: [Errno 2] No such file or directory: 'gone.json'\n"
    )


@pytest.mark.parametrize("config", [["--config", "gone"], ["--config"], ["--config.gone=1"]])
def test_help_is_there_whatever_the_configuration(config, capsys):
    assert cli.main(["tables", *config, "--help"]) == 0
    said = capsys.readouterr().out
    assert "ablations_narrow, base, bp4d_resnet50, " in said
    assert "(default: bp4d_resnet50)" in said
