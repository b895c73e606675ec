"""The same apps on Flower's deployment runtime, for real: one SuperLink and its SuperNodes on loopback.

Every SuperNode gets a folder of its own: its client's shard and nothing of the others', its private device state, its
key. The run's reports must equal those of the same scenario on fedge's inline engine; if they do not, that is an error.
With `--tls`: TLS, and SuperNodes that must prove who they are. `docs/guide/deployment.md` explains it. What runs:

    plain      quickstart
    own        rows of one's own (`fedge.write_dataset`), a folder of them for each node
    policy     policies/deadline.py, which plans each device's next round by its own reports
    arm        an arm of a study: label prior and a head on generated features, shipped beside the factory model
    stream     rows that come while the run goes on, stored by balanced reservoirs
    sums       a server that learns sums of the reports: what rounds say is compared
    unseen     a client that comes for the last round
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.process import in_fresh_process
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine
from fedge.protocol import TIMING_FIELDS
from fedge.results.run_folder import read_reports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def run(options: Options, results: Results) -> None:
    """Prepare, deploy, run, compare."""
    folder = Path(tempfile.mkdtemp(prefix="fedge-deployment-"))
    expected = in_fresh_process(prepare_nodes, folder, options.what, options.clients, options.rounds)
    if options.tls:
        make_certificates(folder, options.clients)
    with superlink(folder, options.tls) as port, supernodes(folder, port, options.clients, options.tls):
        began_s = time.perf_counter()
        flwr(folder, "run", str(ROOT), "fedge", "-c", run_config(folder), "--stream")
        wall_s = time.perf_counter() - began_s
    found = told(folder / "out")
    if found != expected:
        raise RuntimeError(f"{len(found)} reports, unlike the inline engine's; see {folder}")
    shutil.rmtree(folder)
    security = "TLS and node keys" if options.tls else "insecure"
    results.add(
        {
            "what": options.what,
            "security": security,
            "clients": options.clients,
            "reports": len(found),
            "wall_s": round(wall_s),
        }
    )


def own_rows(folder: Path, clients: int) -> list[str]:
    """Samples of one's own, written as a user writes them, and the changes that name them: an owner is a client."""
    import numpy as np

    from fedge import write_dataset

    chance = np.random.default_rng(7)
    y_N = chance.integers(0, 3, 90 * clients)
    x_NCHW = (chance.normal(size=(len(y_N), 1, 16, 16)) + y_N[:, None, None, None]).astype(np.float32)
    write_dataset(folder / "mine", x_NCHW, y_N, owner=np.arange(len(y_N)) % clients)
    return [
        f"data.dataset={folder / 'mine'}/",
        "data.partition={kind='natural'}",
        "data.factory_fraction=0.2",
    ]


def told(out: Path) -> list[Row]:
    """What a run told: its reports; where the server learns sums alone, its rounds."""
    if (out / "reports.jsonl").is_file():
        return read_reports(out, timing=False)
    rounds = map(json.loads, (out / "rounds.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in TIMING_FIELDS} for row in rounds]


PLAIN = ("training.instance_filter={kind='none'}", "training.error_maps.keep=1.0")
WHAT: dict[str, Callable[[Path, int], list[str]]] = {
    "plain": lambda folder, clients: [],
    "own": own_rows,
    "policy": lambda folder, clients: ["schedule={policy='deadline', args={deadline_s=0.5}}"],
    "arm": lambda folder, clients: [
        *PLAIN,
        "training.pruning.level=0.0",
        "training.prior=em",
        "training.what=head",
        "training.source=generated",
    ],
    "stream": lambda folder, clients: [
        "data.stream={rate_per_h=200.0, order='iid', memory=40, keep='balanced'}",
        "availability.round_every_h=0.5",
        "schedule={kind='train_only'}",
    ],
    "sums": lambda folder, clients: ["privacy={view='sums', min_cohort=3}"],
    "unseen": lambda folder, clients: ["schedule={kind='train_only', unseen=0.34}"],
}


def prepare_nodes(folder: Path, what: str, clients: int, rounds: int) -> list[Row]:
    """Run the scenario inline for the reports to expect, and give every node its own data folder."""
    from fedge.data.apart import export_node
    from fedge.launch import run as run_scenario
    from fedge.prepare import prepare
    from fedge.scenario.file import scenario_toml
    from fedge.scenario.load import load_scenario

    fleet = f'fleet=[{{device="jetson-nano", count={clients}}}]'
    changes = [
        f"rounds={rounds}",
        "training.epochs=1",
        "engine.kind=inline",
        fleet,
        *WHAT[what](folder, clients),
    ]
    scenario = load_scenario("quickstart", changes)
    (folder / "scenario.toml").write_text(scenario_toml(scenario))
    run_scenario(scenario, folder / "inline")
    prepared = Path(prepare(scenario).folder)
    for client in range(clients):
        export_node(prepared, client, folder / f"node{client}" / "data")
    return told(folder / "inline")


def run_config(folder: Path) -> str:
    """What `flwr run` overrides of pyproject.toml's [tool.flwr.app.config]."""
    return f'scenario="{folder / "scenario.toml"}" out="{folder / "out"}"'


def make_certificates(folder: Path, clients: int) -> None:
    """A certificate authority, a server certificate for 127.0.0.1, and a key pair per SuperNode."""
    ca, server = folder / "ca", folder / "server"
    new_key = "-newkey rsa:2048 -nodes"
    openssl(f"req -x509 {new_key} -keyout {ca}.key -out {ca}.crt", "-subj", "/CN=fedge CA")
    openssl(f"req {new_key} -keyout {server}.key -out {server}.csr", "-subj", "/CN=localhost")
    Path(f"{server}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signed_by = f"-CA {ca}.crt -CAkey {ca}.key -CAcreateserial -extfile {server}.ext"
    openssl(f"x509 -req -in {server}.csr -out {server}.crt {signed_by}")
    for client in range(clients):
        key = folder / f"node{client}" / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key], check=True)


def openssl(arguments: str, *more: str) -> None:
    """Run openssl, silently unless it fails."""
    subprocess.run(["openssl", *arguments.split(), *more], check=True, capture_output=True)


def certificate_options(folder: Path) -> list[str]:
    """The server's certificate, for the SuperLink and for each SuperNode's own local API."""
    files = {"--ssl-ca-certfile": "ca.crt", "--ssl-certfile": "server.crt", "--ssl-keyfile": "server.key"}
    return [text for option, file in files.items() for text in (option, str(folder / file))]


@contextmanager
def superlink(folder: Path, tls: bool) -> Iterator[int]:
    """A SuperLink, and the `flwr` configuration that calls it `fedge`; its port."""
    home, port = folder / "superlink", free_port()
    home.mkdir()
    trust = f'root-certificates = "{folder / "ca.crt"}"' if tls else "insecure = true"
    (home / "config.toml").write_text(f'[superlink.fedge]\naddress = "127.0.0.1:{port}"\n{trust}\n')
    security = [*certificate_options(folder), "--enable-supernode-auth"] if tls else ["--insecure"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    with running(home, "flower-superlink", *security, *options):
        wait_for_port(port)
        yield port


@contextmanager
def supernodes(folder: Path, superlink_port: int, clients: int, tls: bool) -> Iterator[None]:
    """A SuperNode per client, each in a folder of its own; with TLS, registered by its public key."""
    with ExitStack() as stack:
        for client in range(clients):
            home = folder / f"node{client}"
            security = ["--insecure"]
            if tls:
                flwr(folder, "supernode", "register", f"{home / 'key'}.pub", "fedge")
                trust = ["--root-certificates", str(folder / "ca.crt"), *certificate_options(folder)]
                security = [*trust, "--auth-supernode-private-key", str(home / "key")]
            places = f'data-path="{home / "data"}" device-dir="{home / "state"}"'
            node_config = f"partition-id={client} num-partitions={clients} {places}"
            options = ["--superlink", f"127.0.0.1:{superlink_port}", "--port", str(free_port())]
            stack.enter_context(
                running(home, "flower-supernode", *security, *options, "--node-config", node_config)
            )
        yield


def free_port() -> int:
    """One on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(home: Path, program: str, *options: str) -> Iterator[None]:
    """A program of Flower's, its output in `home`; ended with all that it started."""
    with open(home / "log.txt", "w") as log:
        process = subprocess.Popen(
            [BIN / program, *options],
            env=environment(home),
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_port(port: int, patience_s: float = 60.0) -> None:
    """Until somebody listens on 127.0.0.1:`port`."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nobody listens on port {port} after {patience_s:.0f} s")


def flwr(folder: Path, *arguments: str) -> None:
    """Run a `flwr` command against the SuperLink."""
    subprocess.run([BIN / "flwr", *arguments], env=environment(folder / "superlink"), cwd=folder, check=True)


def environment(home: Path) -> dict[str, str]:
    """Flower's own files in `home`, its programs found, nothing phoning home."""
    return os.environ | QUIET | {"FLWR_HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


COLUMNS = """
| what runs | connection | SuperNodes | reports | seconds of `flwr run` |
| {what} | {security} | {clients} | {reports} | {wall_s} |
"""
NOTE = "every report equals the inline engine's."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", choices=WHAT, default="plain", help="runs there")
    parser.add_argument("--tls", action="store_true", help="certificates, and keys for the SuperNodes")
    parser.add_argument("--clients", type=int, default=3, help="SuperNodes")
    parser.add_argument("--rounds", type=int, default=2)


BENCHMARK = Benchmark(
    name="deployment",
    purpose="The same apps on Flower's deployment runtime",
    takes="a minute of two cores",
    key=("what", "security", "clients", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--clients 1 --rounds 2",
)
