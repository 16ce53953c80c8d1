#!/bin/bash
# One run over several machines, continued after a preemption or a lost machine. Submit: sbatch examples/launch/slurm.sh config.yaml
#SBATCH --job-name=msft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail

config=$1
# Where the run's folder is, as in the configuration: on a disk that all machines share.
output=$(python - "$config" <<'PYTHON'
import sys
from msft.config.reader import load
print(load(sys.argv[1]).output)
PYTHON
)

port=$((20000 + SLURM_JOB_ID % 20000))
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# torchrun starts a process for each GPU. If one ends, all end.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id "$SLURM_JOB_ID" \
    -m msft train "$config" --set training.shard=true --resume-if-begun && exit

# Not at its end: preempted, out of time, or a machine was lost. What is journaled is safe. A run without a journal has
# not begun: its error is in the output.
if [ -f "$output/journal.jsonl" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit 1
