#!/bin/bash
#SBATCH --job-name=fedge --nodes=4 --ntasks-per-node=1 --cpus-per-task=16 --mem=64G --time=04:00:00
#SBATCH --requeue --signal=B:TERM@180 --open-mode=append
# One scenario on all nodes of a Slurm job:   sbatch deploy/slurm.sh mnist-dirichlet [--set key=value]...
# Three minutes before its time is up, and when it is preempted, the run is stopped and the job queued again; it goes on
# after its last whole round. OUT, FEDGE_DATA and FEDGE_CACHE lie on storage that all nodes mount.
set -euo pipefail

: "${SCRATCH:?where results and data lie, on storage that all nodes mount}"
out=${OUT:-$SCRATCH/runs/$SLURM_JOB_ID}
export FEDGE_DATA=${FEDGE_DATA:-$SCRATCH/data} FEDGE_CACHE=${FEDGE_CACHE:-$SCRATCH/fedge-cache}
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/ray-$SLURM_JOB_ID} # short: Ray puts sockets in it, whose names are limited
port=$((20000 + SLURM_JOB_ID % 10000))                   # of this job alone: two may share a node
memory=$((${SLURM_MEM_PER_NODE:-61440} * 15 / 16 * 1024 * 1024))
ray_of_job=(ray start "--num-cpus=$SLURM_CPUS_PER_TASK" "--memory=$memory" --disable-usage-stats --block)
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}

# Each in the background, in the place of its shell, so that signals reach it. --block keeps Ray in its job step, which Slurm ends with the job; `ray stop` would end others' too.
on() { exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}"; }
on "$head" "${ray_of_job[@]}" --head "--port=$port" "--node-name=$head" --include-dashboard=false &
sleep "${RAY_START_S:-20}"
for node in "${nodes[@]:1}"; do # nodes that come later join the run while it goes on
    on "$node" "${ray_of_job[@]}" "--address=$head:$port" "--node-name=$node" &
done

go_on=()
[[ -f $out/checkpoint.json ]] && go_on=(--resume)
on "$head" fedge run "$@" --set "engine.address=$head:$port" --out "$out" ${go_on[@]+"${go_on[@]}"} &
run=$!

stop_and_requeue() {
    trap '' TERM
    kill -TERM "$run"
    wait "$run" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap stop_and_requeue TERM
ended=0
wait "$run" || ended=$?
exit "$ended"
