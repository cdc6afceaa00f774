#!/bin/bash
# Train on several machines under Slurm. Each machine has one agent of torchrun, which starts a rank
# for each of its GPUs. Change the lines of #SBATCH to your cluster, then:
#
#   sbatch --nodes=2 --gpus-per-node=8 scripts/slurm_train.sh +experiment=i3d_nl5 data.root=PATH
#
# Five minutes before the time limit, the run saves itself and the job is put into the queue again.
# NLNET_PROCS=2 sets the number of ranks of a machine, for instance without GPUs.
#SBATCH --job-name=nlnet
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
procs=${NLNET_PROCS:-${SLURM_GPUS_ON_NODE:-1}}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # a new store in each attempt

stopped=0
trap 'stopped=1; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1

# USR1 is for the ranks: it would end an agent, which therefore ignores it.
srun --kill-on-bad-exit=1 bash -c 'trap "" USR1; exec python -m torch.distributed.run "$@"' agent \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$procs" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-endpoint="$host:$port" \
    --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
    tools/train.py "$@" &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2> /dev/null; do # the signal has interrupted `wait`
    wait "$step"
    code=$?
done
if [ "$stopped" = 1 ] && [ "$code" != 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
