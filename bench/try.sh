#!/bin/sh
# Takes one file through compressing, verifying, listing and decompressing, and says how small and how fast.
# Usage: bench/try.sh FOLDER_OF_THE_COMMANDS [FILE]; without FILE, a text that comes with Python.
set -eu

commands=$(cd "$1" && pwd)
file=${2:-}
if [ -z "$file" ]; then
    file=$("$commands/python" -c 'import pydoc_data.topics as topics; print(topics.__file__)')
fi
file=$(cd "$(dirname "$file")" && pwd)/$(basename "$file")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM HUP
cd "$folder"

echo "Compress a file, then decompress what was written to verify it:"
"$commands/sep" -v --verify -o packed.sep -- "$file"
echo "List what was written:"
"$commands/sep" -l packed.sep
echo "Decompress it, and compare:"
"$commands/unsep" -v packed.sep
cmp "$file" packed
echo "All bytes came back."
