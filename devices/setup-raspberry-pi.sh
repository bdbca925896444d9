#!/usr/bin/env bash
# Installs nca-edge on a Raspberry Pi with a 64-bit Raspberry Pi OS (Bookworm or newer).
# Usage: setup-raspberry-pi.sh WHEEL [FOLDER_WITH_WHEELS]
# With the folder nothing is fetched from a network. NCA_EDGE_HOME chooses another place than ~/nca-edge.
set -euo pipefail

die() { echo "$*" >&2; exit 2; }

wheel=${1:-}
wheels=${2:-}
home=${NCA_EDGE_HOME:-$HOME/nca-edge}
NCA_EDGE_SYSTEM=${NCA_EDGE_SYSTEM:-Raspberry Pi OS}

[[ -n $wheel ]] || die "Which wheel? Usage: $0 nca_edge-VERSION-py3-none-any.whl [FOLDER_WITH_WHEELS]"
[[ -f $wheel ]] || die "There is no file $wheel."
[[ -z $wheels || -d $wheels ]] || die "There is no folder $wheels."
[[ $(getconf LONG_BIT) == 64 ]] || die "This system is 32-bit: install the 64-bit ${NCA_EDGE_SYSTEM} first."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed: install a newer ${NCA_EDGE_SYSTEM}."
python3 -c 'import ensurepip' 2>/dev/null || die "First run: sudo apt install python3-venv"

# An environment of its own: the system's Python is managed by apt and refuses pip.
[[ -x $home/bin/python ]] || python3 -m venv "$home"
offline=()
[[ -z $wheels ]] || offline=(--no-index --find-links "$wheels")
"$home/bin/python" -m pip install --upgrade "${offline[@]}" "$wheel"

"$home/bin/nca-edge" devices
echo "Installed. Start it with: $home/bin/nca-edge --help"
