#!/bin/bash
# A run on a Ray cluster that is there already, started from another machine:
#   RAY_ADDRESS=http://head-node:8265 deploy/ray_job.sh mnist-dirichlet /shared/runs/first [--set key=value]...
# The job runs on the head node, where fedge is installed; the folder lies on storage that all nodes mount. Submitted again
# with the same folder it goes on after its last whole round.
set -euo pipefail

: "${RAY_ADDRESS:?the address of the dashboard, as http://head-node:8265}"
scenario=${1:?a scenario} out=${2:?a folder for the results}
shift 2
printf -v words '%q ' "$scenario" --out "$out" "$@"
exec ray job submit -- bash -c \
    "test -f $(printf %q "$out")/checkpoint.json && go_on=--resume; exec fedge run $words \
--set engine.address=\$(hostname -i):${GCS_PORT:-6379} \${go_on:-}"
