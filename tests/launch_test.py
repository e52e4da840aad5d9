# SPDX-License-Identifier: Apache-2.0
"""Shell and manifests: what linters and dry runs can find. `launch/` is run with stand-ins for
Python, mdhr, nvidia-smi and srun, which write down how they were called."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from mdhr_jax.commands.flags import CONFIGS

REPOSITORY = pathlib.Path(__file__).parents[1]
LAUNCH = REPOSITORY / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch", REPOSITORY / ".ci/run"]
TOOLS = pathlib.Path(sys.executable).parent
# What JAX and CUDA are told.
WATCHED = ("XLA_CLIENT_MEM_FRACTION", "JAX_OPTIMIZATION_LEVEL", "CUDA_DEVICE_MAX_CONNECTIONS")


def _succeeds(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_is_without_faults(script):
    _succeeds("bash", "-n", script)
    _succeeds(TOOLS / "shellcheck", "--shell=bash", "-x", script, cwd=REPOSITORY)


# Dry runs.


@pytest.fixture
def machine(tmp_path):
    """A machine with a copy of `launch/`: runs a script, gives the calls made there so far.

    A call is its words, and the watched variables that were set.
    """
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    stand_in = (
        '#!/usr/bin/env bash\n{ printf "%s\\t" "${0##*/}" "$@"; '
        f'for name in {" ".join(WATCHED)}; do echo -n "$name=${{!name-}} "; done; echo; }} '
        f'>>"{tmp_path}/calls"\n'
    )

    def put(place, text):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755)

    (tmp_path / "calls").touch()
    put(tmp_path / "bin/python3.12", "#!/bin/sh\n")
    put(tmp_path / "bin/srun", stand_in)
    for name in ("python", "mdhr", "pytest"):
        put(tmp_path / ".venv/bin" / name, stand_in)

    def run(script, *arguments, gpus=0, capability="9.0", code=0, **environment):
        if gpus:
            answer = f'[ "$1" = -L ] && said="GPU" || said="{capability}"'
            put(
                tmp_path / "bin/nvidia-smi",
                f'#!/bin/bash\n{answer}\nfor i in {{1..{gpus}}}; do echo "$said"; done\n',
            )
        own = {name: text for name, text in os.environ.items() if name not in WATCHED}
        own.pop("JAX_PLATFORMS", None)
        own |= environment | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        command = ["bash", f"launch/{script}", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return [_call(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def _call(line):
    *words, variables = line.split("\t")
    pairs = (pair.split("=") for pair in variables.split())
    return words, {name: value for name, value in pairs if value}


def test_a_training_on_a_cpu_gets_its_arguments_and_no_cuda(machine):
    (pip, _), (mdhr, variables) = machine("one_node.sh", "--workdir", "a b", "--config=c.py")
    assert pip[-1] == "." and "--constraint" in pip
    assert mdhr == ["mdhr", "train", "--workdir", "a b", "--config=c.py"]
    assert variables == {"XLA_CLIENT_MEM_FRACTION": "0.9"}


@pytest.mark.parametrize(
    ("gpus", "capability", "expected"),
    [
        (1, "9.0", {}),
        (8, "9.0", {"JAX_OPTIMIZATION_LEVEL": "O1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}),
        (8, "10.0", {"JAX_OPTIMIZATION_LEVEL": "O1"}),
    ],
)
def test_a_training_on_gpus_has_cuda_and_its_settings(machine, gpus, capability, expected):
    (pip, _), (_, variables) = machine("one_node.sh", gpus=gpus, capability=capability)
    assert pip[-1] == ".[cuda]"
    assert variables == {"XLA_CLIENT_MEM_FRACTION": "0.9"} | expected


def test_what_the_user_has_set_stays(machine):
    own = {"XLA_CLIENT_MEM_FRACTION": "0.5", "JAX_OPTIMIZATION_LEVEL": "O2"}
    own["CUDA_DEVICE_MAX_CONNECTIONS"] = "4"
    *_, (_, variables) = machine("one_node.sh", gpus=2, **own)
    assert variables == own


def test_the_cpu_of_a_machine_with_gpus_may_be_asked_for(machine):
    (pip, _), _ = machine("one_node.sh", gpus=1, JAX_PLATFORMS="cpu")
    assert pip[-1] == "."


def test_an_environment_is_made_once(machine):
    assert len(machine("one_node.sh")) == 2
    assert len(machine("one_node.sh")) == 3


PIP_SAYS = """\
Collecting jax==0.12 (from mdhr-jax==0.1.0)
  Downloading jax-0.12-py3-none-any.whl.metadata (13 kB)
  Downloading jax-0.12-py3-none-any.whl (3.5 MB)
  Downloading jaxlib-0.12-cp312-cp312-manylinux_2_27_x86_64.whl (86.8 MB)
  Using cached scipy-1.18-cp312-cp312-manylinux_2_27_x86_64.whl (135.0 MB)
Installing collected packages: scipy, jaxlib, jax
Successfully installed jax-0.12 jaxlib-0.12 scipy-1.18
"""


@pytest.mark.parametrize("code", [0, 3])
def test_an_installation_is_told_in_brief_and_what_is_wrong_in_full(machine, tmp_path, code):
    pip = f"cat <<'end'\n{PIP_SAYS}end\necho 'ERROR: no wheel\n  of jax' >&2\nexit {code}\n"
    (tmp_path / ".venv/bin/python").write_text(f"#!/bin/sh\n{pip}")
    command = ["bash", "-euc", "source launch/environment.sh; make_environment ''; echo after"]
    own = os.environ | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    first, *brief = done.stdout.splitlines()
    assert first.startswith("Installing JAX") and first.endswith("about two minutes ...")
    assert brief[:2] == ["  jaxlib 86.8 MB", "  scipy 135.0 MB"]
    assert brief[2].startswith("  putting 3 packages in place")
    assert done.returncode == code and done.stderr == "ERROR: no wheel\n  of jax\n"
    last = ["Installed in 0 s.", "after"] if code == 0 else []
    assert re.sub(r"\d+ s", "0 s", "\n".join(brief[3:])) == "\n".join(last)
    assert (tmp_path / ".venv/installed").exists() == (code == 0)


def test_a_slurm_task_has_all_gpus_and_cores_of_its_node(machine):
    arguments = ("--config", "c.py", "--workdir", "a b")
    *_, (srun, variables) = machine(
        "slurm.sbatch", *arguments, gpus=4, SLURM_GPUS_ON_NODE="4", SLURM_CPUS_ON_NODE="64"
    )
    assert srun[:3] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=64"]
    assert srun[3:] == [".venv/bin/mdhr", "train", *arguments]
    assert variables == {
        "XLA_CLIENT_MEM_FRACTION": "0.9",
        "JAX_OPTIMIZATION_LEVEL": "O1",
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    }


def test_a_slurm_job_without_gpus_stops_before_it_trains(machine):
    assert machine("slurm.sbatch", code=1, SLURM_CPUS_ON_NODE="64") == []


def test_a_slurm_job_has_a_task_per_node_and_is_queued_again():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert {"--ntasks-per-node=1", "--requeue", "--open-mode=append"} <= set(options)
    first_command = lines.index("set -euo pipefail")  # Slurm reads no option after it
    assert all(not line.startswith("#SBATCH") for line in lines[first_command:])


def test_folds_and_seeds_are_a_comparison_and_may_be_chosen(machine):
    *_, (mdhr, _) = machine("folds.sh", "--seeds", "5", "--variant", "a: epochs=2.0")
    common = ["mdhr", "compare", "--folds", "1,2,3", "--seeds", "3"]
    assert mdhr == [*common, "--seeds", "5", "--variant", "a: epochs=2.0"]


def test_the_soak_runs_its_tests_one_after_the_other(machine):
    trainings, preparations, others = [words for words, _ in machine("soak.sh", "-x")][-3:]
    assert trainings[:4] == ["pytest", "-m", "soak", "--numprocesses=0"]
    assert trainings[-2:] == ["tests/soak_test.py", "-x"]
    assert preparations[-2:] == ["tests/data/prepare_soak_test.py", "-x"]
    ignored = {word.removeprefix("--ignore=") for word in others[3:-1]}
    assert ignored == {trainings[-2], preparations[-2]}


@pytest.mark.soak
@pytest.mark.usefixtures("quick_compilation_elsewhere")
def test_folds_are_spread_and_end_in_a_table(config_file, tmp_path, machine):
    command = f'#!/bin/sh\nexec {sys.executable} -m mdhr_jax.cli "$@"\n'
    (tmp_path / ".venv/bin/mdhr").write_text(command)
    arguments = [f"--config={config_file()}", f"--workdir={tmp_path / 'runs'}", "--seeds=1"]
    arguments += ["--folds=1,2", "--processes=2", "--variant", "one: epochs=2.0"]
    machine("folds.sh", *arguments, JAX_PLATFORMS="cpu", PYTHONPATH=str(REPOSITORY))
    assert "seeds 0, fold 1 2: " in (tmp_path / "runs/table.md").read_text()
    places = {place.name for place in (tmp_path / "runs/one").iterdir()}
    assert places == {"fold1-seed0", "fold2-seed0"}


# The image.


@pytest.fixture(scope="module")
def dockerfile():
    """Instructions with their arguments; continued lines are joined."""
    text = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def _copied(dockerfile):
    return [
        source
        for instruction, words in dockerfile
        if instruction == "COPY"
        for source in words.split()[:-1]
    ]


def test_the_dockerfile_is_without_faults():
    _succeeds(TOOLS / "hadolint", LAUNCH / "Dockerfile")


def test_the_image_holds_what_the_package_is_built_from(dockerfile):
    copied = _copied(dockerfile)
    assert all((REPOSITORY / source).exists() for source in copied)
    project = (REPOSITORY / "pyproject.toml").read_text()
    (readme,) = re.findall('^readme = "(.*)"', project, re.M)
    (packages,) = re.findall(r"^include = \[(.*)\]", project, re.M)
    folders = [name.strip(' "*') for name in packages.split(",")]
    assert {"pyproject.toml", "constraints.txt", readme, *folders} <= set(copied)
    links = [path.resolve() for path in REPOSITORY.glob("mdhr_jax/**/*") if path.is_symlink()]
    assert links and {path.relative_to(REPOSITORY).parts[0] for path in links} <= set(copied)


def test_nothing_else_is_sent_to_docker(dockerfile):
    lines = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[1] == "*" and sorted(kept) == sorted(_copied(dockerfile))


def test_the_image_is_pinned_and_its_user_has_no_rights(dockerfile):
    instructions = dict(dockerfile)
    assert instructions["FROM"] == "python:3.12-slim"
    assert "--constraint constraints.txt" in instructions["RUN"]
    assert f"--uid {instructions['USER']} " in instructions["RUN"]
    assert instructions["ENTRYPOINT"] == '["mdhr"]'
    pinned = (REPOSITORY / "constraints.txt").read_text()
    assert re.search("^jax-cuda13-plugin==", pinned, re.M)


# Kubernetes.


@pytest.fixture
def jobset():
    return yaml.safe_load((LAUNCH / "k8s_jobset.yaml").read_text())


@pytest.fixture
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


@pytest.fixture
def container(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def _variables(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_there_is_a_pod_per_process(job, container):
    assert job["completionMode"] == "Indexed"
    processes = _variables(container)["JAX_NUM_PROCESSES"]
    assert processes == str(job["parallelism"]) == str(job["completions"])


def test_all_pods_find_the_first(jobset, container):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name, (replicated,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    (port,) = [port["containerPort"] for port in container["ports"]]
    coordinator = f"{name}-{replicated['name']}-0-0.{name}:{port}"
    assert _variables(container)["JAX_COORDINATOR_ADDRESS"] == coordinator


def test_a_lost_pod_starts_all_again_and_a_mistake_does_not(jobset, job, container):
    pod = job["template"]["spec"]
    assert (pod["restartPolicy"], job["backoffLimit"]) == ("Never", 0)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [2, 3]  # of mdhr_jax.cli
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_a_pod_has_the_images_user_and_its_volumes(job, container, dockerfile):
    pod, user = job["template"]["spec"], int(dict(dockerfile)["USER"])
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": user, "fsGroup": user}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounted["shm"] == "/dev/shm"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_a_pod_trains_on_the_shared_volume(container):
    command, *arguments = container["args"]
    values = dict(argument.removeprefix("--").split("=") for argument in arguments)
    assert command == "train"
    assert values["config"] in CONFIGS
    assert values["workdir"].startswith("/shared/") and values["config.data"].startswith("/shared/")


def test_a_pod_has_the_settings_of_the_scripts(container, machine):
    *_, (_, variables) = machine("one_node.sh", gpus=8)
    assert variables.items() <= _variables(container).items()
