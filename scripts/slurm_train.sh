#!/usr/bin/env bash
# Trains on one or several SLURM nodes, from the root of the repository:
#
#     sbatch scripts/slurm_train.sh
#
# Before the time limit, or when the job is preempted, the run saves itself, the job goes back into the queue, and
# continues from there. A process that dies restarts the others from the last checkpoint. See docs/distributed.md.

# EDIT 1: the machines. torchrun starts one process for each GPU of a node.
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00

#SBATCH --job-name=kpac
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

set -euo pipefail

# EDIT 2: the environment.
source .venv/bin/activate

# EDIT 3: what to train.
config=configs/paper/kpac_2level.yaml
name=paper_2level
overrides=(data.root=data/dd_dp_dataset_canon train.batch_size=16)

run=runs/$name
if compgen -G "$run/checkpoints/iteration_*.pt" > /dev/null; then
    arguments=(--resume "$run")
else
    arguments=("$config" "name=$name" "${overrides[@]}")
fi
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # or restarts may look for the addresses of processes that died
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since SLURM 22.05 srun does not take it from sbatch

requeue=no
# srun answers SIGTERM by killing its step, so the step's processes get theirs from scancel. They save, and end.
trap 'requeue=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1
srun torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=gpu --max-restarts=3 \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="${hosts[0]}:29500" \
    scripts/train.py "${arguments[@]}" &
training=$!
status=0
wait "$training" || status=$?
if [[ $requeue == yes ]]; then # the signal ended the wait, not the training
    status=0
    wait "$training" || status=$?
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
