#!/usr/bin/env bash
# Installs nca-edge on a Raspberry Pi with a 64-bit Raspberry Pi OS (Bookworm or newer).
# Usage: setup-raspberry-pi.sh [--service] WHEEL [FOLDER_WITH_WHEELS]
# With the folder nothing is fetched from a network. NCA_EDGE_HOME chooses another place than ~/nca-edge.
# --service (with sudo) also makes the page start with the board; the place is then /opt/nca-edge. May be run again for an update.
set -euo pipefail

die() { echo "$*" >&2; exit 2; }

service=
[[ ${1:-} != --service ]] || { service=yes; shift; }
wheel=${1:-}
wheels=${2:-}
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
home=${NCA_EDGE_HOME:-${service:+/opt/nca-edge}}
home=${home:-$HOME/nca-edge}
NCA_EDGE_SYSTEM=${NCA_EDGE_SYSTEM:-Raspberry Pi OS}

[[ -n $wheel ]] || die "Which wheel? Usage: $0 [--service] nca_edge-VERSION-....whl [FOLDER_WITH_WHEELS]"
[[ -f $wheel ]] || die "There is no file $wheel."
[[ -z $wheels || -d $wheels ]] || die "There is no folder $wheels."
[[ -z $service || $EUID == 0 ]] || die "A service needs the right to install it: sudo $0 --service $*"
[[ $(getconf LONG_BIT) == 64 ]] || die "This system is 32-bit: install the 64-bit ${NCA_EDGE_SYSTEM} first."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed: install a newer ${NCA_EDGE_SYSTEM}."
python3 -c 'import ensurepip' 2>/dev/null || die "First run: sudo apt install python3-venv"

# An environment of its own: the system's Python is managed by apt and refuses pip.
[[ -x $home/bin/python ]] || python3 -m venv "$home"
offline=()
[[ -z $wheels ]] || offline=(--no-index --find-links "$wheels")
"$home/bin/python" -m pip install --upgrade "${offline[@]}" "$(realpath "$wheel")${service:+[camera,web]}"
# A runtime for the board's GPU, built by the user, takes the place of the CPU's: both are the module onnxruntime.
for gpu in "$wheels"/onnxruntime_gpu-*.whl; do
  [[ -z $wheels || ! -f $gpu ]] || { "$home/bin/python" -m pip uninstall --yes onnxruntime; "$home/bin/python" -m pip install --no-deps --no-index "$gpu"; }
done

"$home/bin/nca-edge" devices
[[ -z $service ]] || exec "$here/setup-service.sh" "$home"
echo "Installed. Start it with: $home/bin/nca-edge --help"
