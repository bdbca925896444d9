#!/usr/bin/env bash
# Installs nca-edge on a Jetson with JetPack 6 (Python 3.10). It runs on the processor: the package index has no onnxruntime
# wheel for Jetson's GPU; one that you built yourself (onnxruntime_gpu-*.whl) may lie in the folder of wheels: nca-edge tries it
# and uses the GPU where it gives the right answers.
# Usage: setup-jetson.sh [--service] WHEEL [FOLDER_WITH_WHEELS], as setup-raspberry-pi.sh.
set -euo pipefail

die() { echo "$*" >&2; exit 2; }

grep -qs 'Jetson Nano' /proc/device-tree/model && ! grep -qs 'Orin' /proc/device-tree/model \
  && die "The first Jetson Nano is out of scope: its last system has Python 3.6."
grep -qs 'Xavier' /proc/device-tree/model && die "The Jetson Xavier is out of scope: its last system, JetPack 5, has Python 3.8."
NCA_EDGE_SYSTEM=${NCA_EDGE_SYSTEM:-JetPack 6 or newer} exec "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/setup-raspberry-pi.sh" "$@"
