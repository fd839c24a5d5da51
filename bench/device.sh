#!/usr/bin/env bash
# Everything that is to be shown on a GPU, in one call: the tests there, frames equal to those that a CPU made, speed,
# streams, memory, and the time to start.
#
#     bench/device.sh FILES OUT [CPU_FRAMES]
#
# FILES is a directory of files, of which the first 64 KiB each are compressed and the largest one is used for speed;
# OUT is a directory for the results; CPU_FRAMES one of frames NAME.sep that a CPU made of the same 64 KiB
# (bench/round_trip.py --bytes 65536 --device cpu --keep CPU_FRAMES). Exit status 1 if anything differs.
set -uo pipefail
files=$1 out=$2 cpu_frames=${3:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=src OMP_NUM_THREADS=1
failed=0
mkdir -p "$out/frames"
largest=$(ls -S "$files" | head -1)

for test in tests/test_golden.py tests/test_engine.py tests/test_fused.py tests/test_kernel_*.py; do
    (python -m pytest -q -p no:cacheprovider "$test" > "$out/$(basename "$test" .py).log" 2>&1 || touch "$out/failed") &
done
wait
tail -qn 1 "$out"/test_*.log

python bench/round_trip.py "$files"/* --bytes 65536 --device cuda --jobs 4 --keep "$out/frames" \
    > "$out/round_trip.jsonl" || failed=1
tail -n 1 "$out/round_trip.jsonl"
if [ -n "$cpu_frames" ]; then
    diff -rq "$out/frames" "$cpu_frames" && echo "frames equal to the CPU's: $(ls "$cpu_frames" | wc -l)" || failed=1
fi

python bench/steps.py "$files/$largest" --network pac --network pac-small --level 1 --level 5 --level 9 --steps 4096 \
    --device cuda | tee "$out/steps.jsonl" || failed=1
all=cuda:0
[ "$(nvidia-smi -L | wc -l)" -gt 1 ] && all=cuda:0,1
python bench/streams.py "$files/$largest" --size 32M --segment 4M --streams 1 4 --device cuda:0 $all --level 1 \
    | tee "$out/streams.jsonl" || failed=1
for network in pac patchtst; do
    python bench/streams.py "$files/$largest" --size 4M --segment 1M --streams 4 --device cuda:0 --network $network \
        --workspaces 1 2 4 | tee -a "$out/streams.jsonl" || failed=1
done
python bench/start.py "$files/$largest" --device cuda | tee "$out/start.jsonl" || failed=1

[ -e "$out/failed" ] && failed=1
exit $failed
