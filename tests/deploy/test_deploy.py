"""The launchers: their syntax, what they say of the project, and dry runs with stand-ins for a cluster's commands."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))
STAND_INS = {
    "srun": """
for word in "$@"; do case $word in fedge) program=1;; ray) program=2;; esac; done
echo "srun $*" >> "$CALLS"
[[ ${program:-} == 2 ]] && exec sleep 30   # --block
trap 'echo "stopped" >> "$CALLS"; exit 143' TERM
[[ ${ENDS:-} ]] && exit "$ENDS"
sleep 30 & wait
""",
    "scontrol": """
echo "scontrol $*" >> "$CALLS"
[[ $1 == show ]] && printf 'node-a\\nnode-b\\n'
exit 0
""",
    "ray": 'printf "%s\\n" "$@" > "$CALLS"\n',
}


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which a cluster's commands are noted down."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SCRATCH": str(tmp_path),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_CPUS_PER_TASK": "16",
        "RAY_START_S": "0",
    }


def slurm(cluster: dict[str, str], *, stop: bool = False) -> tuple[int, list[str]]:
    """Exit code of the batch script, and the calls that it made; stop: it hears SIGTERM when the run has begun."""
    calls = Path(cluster["CALLS"])
    calls.write_text("")
    script = subprocess.Popen(
        ["bash", DEPLOY / "slurm.sh", "quickstart", "--set", "rounds=2"], env=cluster, start_new_session=True
    )
    try:
        while stop and " fedge run " not in calls.read_text():
            assert script.poll() is None
            time.sleep(0.02)
        if stop:
            time.sleep(0.2)  # the stand-in's trap
            script.send_signal(signal.SIGTERM)
        code = script.wait(timeout=20)
    finally:
        os.killpg(script.pid, signal.SIGKILL)
    return code, calls.read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sound(script: Path) -> None:
    """Breaks if a shell cannot read a script, or nobody may execute it."""
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert os.access(script, os.X_OK)


def test_slurm_starts_ray_on_every_node_and_one_run(cluster: dict[str, str]) -> None:
    """Breaks if a node gets no Ray, if two jobs share a port, or if the run's end is not the job's."""
    code, calls = slurm(cluster | {"ENDS": "3"})
    on = "srun --overlap --nodes=1 --ntasks=1 --nodelist="
    assert code == 3
    heads = [call for call in calls if "--head" in call]
    assert len(heads) == 1 and heads[0].startswith(f"{on}node-a ray start") and "--port=24711" in heads[0]
    assert any(
        call.startswith(f"{on}node-b ray start") and "--address=node-a:24711" in call for call in calls
    )
    (run,) = (call for call in calls if " fedge " in call)
    out = f"{cluster['SCRATCH']}/runs/4711"
    words = f"fedge run quickstart --set rounds=2 --set engine.address=node-a:24711 --out {out}"
    assert run == f"{on}node-a {words}"


def test_slurm_stops_the_run_queues_the_job_again_and_goes_on(cluster: dict[str, str]) -> None:
    """Breaks if a preempted job is lost, or begins anew."""
    code, calls = slurm(cluster, stop=True)
    assert code == 0 and calls[-2:] == ["stopped", "scontrol requeue 4711"]
    out = Path(cluster["SCRATCH"]) / "runs" / "4711"
    out.mkdir(parents=True)
    (out / "checkpoint.json").write_text("{}")
    _, calls = slurm(cluster | {"ENDS": "0"})
    (run,) = (call for call in calls if " fedge " in call)
    assert run.endswith(f"--out {out} --resume")


def test_a_ray_job_is_one_command_that_goes_on(cluster: dict[str, str], tmp_path: Path) -> None:
    """Breaks if words with blanks fall apart on their way to the cluster."""
    words = ["quickstart", f"{tmp_path}/my runs", "--set", "name='a b'"]
    done = subprocess.run(
        ["bash", DEPLOY / "ray_job.sh", *words], env=cluster | {"RAY_ADDRESS": "http://x:8265"}, check=False
    )
    assert done.returncode == 0
    *before, command = Path(cluster["CALLS"]).read_text().splitlines()
    assert before == ["job", "submit", "--", "bash", "-c"]
    (tmp_path / "fedge").write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    (tmp_path / "fedge").chmod(0o755)
    (tmp_path / "my runs").mkdir()
    (tmp_path / "my runs" / "checkpoint.json").touch()
    said = subprocess.run(["bash", "-c", command], env=cluster, capture_output=True, text=True, check=True)
    said_words = said.stdout.split("|")[:-1]
    assert said_words[:6] == ["run", "quickstart", "--out", f"{tmp_path}/my runs", "--set", "name='a b'"]
    assert (
        re.fullmatch(r"engine\.address=\S+:6379", said_words[7].replace(" ", ""))
        and said_words[-1] == "--resume"
    )


def test_the_ray_job_of_kubernetes_is_one() -> None:
    """Breaks if a key is misspelt, if Ray's versions differ, or if the pods do not see one another's files."""
    (job,) = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() == {
        "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec",
    }  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    workers = cluster["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *workers)]
    for pod in pods:
        (container,) = pod["containers"]
        held = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= held
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/runs", "/data"} <= mounted
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in workers)


def test_the_image_holds_what_is_shipped() -> None:
    """Breaks if a folder of the wheel is not copied, or one is copied that is not there."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert {"fedge", "clients", "policies", "scenarios", "studies", "pyproject.toml"} <= copied
    assert all((ROOT / word).exists() for word in copied)
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "VOLUME", "ENTRYPOINT", "CMD", "#"}
    joined = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    starts = [line.split()[0] for line in joined if line]
    assert set(starts) <= known and starts[-1] == "CMD"
