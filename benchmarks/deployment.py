"""The same apps on Flower's deployment runtime, for real: one SuperLink and three SuperNodes on loopback.

    python -m benchmarks.deployment            insecure
    python -m benchmarks.deployment --tls      TLS, and SuperNodes that must prove who they are

Every SuperNode gets a folder of its own: its client's shard and nothing of the others', its private device
state, its key. The run's reports must equal those of the same scenario on fedge's inline engine; the script
says so and ends with code 1 if they do not. `docs/deployment.md` tells what the commands mean.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.process import in_fresh_process
from fedge.results.run_folder import read_reports

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SUPERLINK_PORT, NODE_PORT = 18000, 19094
CHANGES = ["rounds=2", "training.epochs=1", *(f"fleet.{index}.count=1" for index in range(3))]
CLIENTS = 3
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def main() -> None:
    """Prepare, deploy, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tls", action="store_true")
    tls = parser.parse_args().tls
    folder = Path(tempfile.mkdtemp(prefix="fedge-deployment-"))
    expected = in_fresh_process(prepare_nodes, folder)
    if tls:
        make_certificates(folder)
    with superlink(folder, tls), supernodes(folder, tls):
        began_s = time.perf_counter()
        flwr(folder, "run", str(ROOT), "fedge", "-c", run_config(folder), "--stream")
        wall_s = time.perf_counter() - began_s
    reports = read_reports(folder / "out", timing=False)
    same = reports == expected
    print(f"{'TLS and node keys' if tls else 'insecure'}: {len(reports)} reports in {wall_s:.0f} s, ", end="")
    print("equal to the inline engine's" if same else f"UNLIKE the inline engine's; see {folder}")
    if not same:
        sys.exit(1)
    shutil.rmtree(folder)


def prepare_nodes(folder: Path) -> list[dict[str, Any]]:
    """Run the scenario inline for the reports to expect, and give every node its own data folder."""
    from fedge.data.shard import export_shard
    from fedge.launch import run
    from fedge.prepare import prepare
    from fedge.scenario.file import scenario_toml
    from fedge.scenario.load import load_scenario

    scenario = load_scenario("quickstart", [*CHANGES, "engine.kind=inline"])
    (folder / "scenario.toml").write_text(scenario_toml(scenario))
    run(scenario, folder / "inline")
    prepared = Path(prepare(scenario).folder)
    for client in range(CLIENTS):
        data = folder / f"node{client}" / "data"
        data.mkdir(parents=True)
        for name in ("prepared.json", "factory.safetensors"):
            shutil.copy(prepared / name, data)
        export_shard(prepared / "shards", client, data / "shards")
    return read_reports(folder / "inline", timing=False)


def run_config(folder: Path) -> str:
    """What `flwr run` overrides of pyproject.toml's [tool.flwr.app.config]."""
    return f'scenario="{folder / "scenario.toml"}" out="{folder / "out"}"'


def make_certificates(folder: Path) -> None:
    """A certificate authority, a server certificate for 127.0.0.1, and a key pair per SuperNode."""
    authority, server = folder / "ca", folder / "server"
    new_key = ["-newkey", "rsa:2048", "-nodes"]
    openssl(
        "req",
        "-x509",
        *new_key,
        "-keyout",
        f"{authority}.key",
        "-out",
        f"{authority}.crt",
        "-subj",
        "/CN=fedge CA",
    )
    openssl("req", *new_key, "-keyout", f"{server}.key", "-out", f"{server}.csr", "-subj", "/CN=localhost")
    Path(f"{server}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signed_by = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial"]
    openssl(
        "x509",
        "-req",
        "-in",
        f"{server}.csr",
        *signed_by,
        "-out",
        f"{server}.crt",
        "-extfile",
        f"{server}.ext",
    )
    for client in range(CLIENTS):
        key = folder / f"node{client}" / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key], check=True)


def openssl(*arguments: str) -> None:
    """Run openssl, silently unless it fails."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate_options(folder: Path) -> list[str]:
    """The server's certificate, for the SuperLink and for each SuperNode's own local API."""
    files = {"--ssl-ca-certfile": "ca.crt", "--ssl-certfile": "server.crt", "--ssl-keyfile": "server.key"}
    return [text for option, file in files.items() for text in (option, str(folder / file))]


@contextmanager
def superlink(folder: Path, tls: bool) -> Iterator[None]:
    """A SuperLink, and the `flwr` configuration that calls it `fedge`."""
    home = folder / "superlink"
    home.mkdir()
    trust = f'root-certificates = "{folder / "ca.crt"}"' if tls else "insecure = true"
    address = f'address = "127.0.0.1:{SUPERLINK_PORT}"'
    (home / "config.toml").write_text(f"[superlink.fedge]\n{address}\n{trust}\n")
    security = [*certificate_options(folder), "--enable-supernode-auth"] if tls else ["--insecure"]
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(SUPERLINK_PORT),
        "--disable-runtime-dependency-installation",
    ]
    with running(home, "flower-superlink", *security, *options):
        wait_for_port(SUPERLINK_PORT)
        yield


@contextmanager
def supernodes(folder: Path, tls: bool) -> Iterator[None]:
    """A SuperNode per client, each in a folder of its own; with TLS, registered by its public key."""
    with ExitStack() as stack:
        for client in range(CLIENTS):
            home = folder / f"node{client}"
            security = ["--insecure"]
            if tls:
                flwr(folder, "supernode", "register", f"{home / 'key'}.pub", "fedge")
                trust = ["--root-certificates", str(folder / "ca.crt"), *certificate_options(folder)]
                security = [*trust, "--auth-supernode-private-key", str(home / "key")]
            places = f'data-path="{home / "data"}" device-dir="{home / "state"}"'
            node_config = f"partition-id={client} num-partitions={CLIENTS} {places}"
            options = ["--superlink", f"127.0.0.1:{SUPERLINK_PORT}", "--port", str(NODE_PORT + client)]
            stack.enter_context(
                running(home, "flower-supernode", *security, *options, "--node-config", node_config)
            )
        yield


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


if __name__ == "__main__":
    main()
