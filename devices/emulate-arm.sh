#!/usr/bin/env bash
# Runs the built wheel with the real aarch64 wheels of its dependencies under user-mode emulation, as the cores of a Raspberry
# Pi 4 (Cortex-A72) and of a Pi 5 (Cortex-A76), and compares golden cells and a sample field with this machine. It says that the
# package runs there and answers the same; it says nothing about time. For Debian and its kin on x86-64, with apt, dpkg, pip and a
# network once; nothing is installed system-wide. Usage: emulate-arm.sh PYTHON WHEEL FOLDER RESULT
# With QEMU, a qemu-aarch64 that is built with plugins, and PLUGIN, its libinsn.so, also the instructions that a cell takes.
# qemu before 8.1 crashes: CPU detection of onnxruntime reads the host's /proc/cpuinfo there.
set -euo pipefail

[[ $# == 4 ]] || { echo "Usage: $0 PYTHON WHEEL FOLDER RESULT" >&2; exit 2; }
python=$1 wheel=$(realpath "$2") result=$4
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
mkdir -p "$3" && work=$(realpath "$3")
# libraries that Python and the wheels of its packages need, for Debian 12, whose Python is 3.11
packages=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libncursesw6 libtinfo6
  libreadline8 libuuid1 libdb5.3 libcrypt1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libnsl2 libtirpc3)

apt_options() { # FOLDER ARCHITECTURE: an apt of its own, so that this machine's is left alone
  mkdir -p "$1/lists/partial" "$1/archives/partial"; touch "$1/status"
  echo "-o Dir::State=$1 -o Dir::State::lists=$1/lists -o Dir::State::status=$1/status -o Dir::Cache=$1" \
    "-o APT::Architecture=$2 -o APT::Architectures::=$2 -o Acquire::Languages=none"
}

if [[ ! -x $work/root/usr/bin/python3.11 ]]; then
  echo "fetching the aarch64 system"
  read -ra options < <(apt_options "$work/arm64" arm64)
  apt-get "${options[@]}" update -qq
  mkdir -p "$work/debs" "$work/root"
  (cd "$work/debs" && apt-get "${options[@]}" download -qq "${packages[@]}" && for deb in *.deb; do dpkg -x "$deb" ../root; done)
fi
qemu=${QEMU:-$work/qemu/usr/bin/qemu-aarch64} plugin=${PLUGIN:-}
if [[ -z ${QEMU:-} && ! -x $qemu ]]; then
  echo "fetching the emulator"
  mirror=$(sed -n 's/^URIs: *\(.*debian\)\/*$/\1/p' /etc/apt/sources.list.d/*.sources | head -1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" > "$work/trixie.list"
  read -ra options < <(apt_options "$work/amd64" amd64)
  options+=(-o "Dir::Etc::sourcelist=$work/trixie.list" -o Dir::Etc::sourceparts=-)
  apt-get "${options[@]}" update -qq
  mkdir -p "$work/qemu" && (cd "$work/qemu" && apt-get "${options[@]}" download -qq qemu-user && dpkg -x qemu-user*.deb .)
fi
echo "fetching the wheels"
rm -rf "$work/site" "$work/wheels" && mkdir -p "$work/wheels" "$work/site"
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
"$python" -m pip download --quiet --dest "$work/wheels" --only-binary=:all: "${platforms[@]}" --python-version 311 \
  --implementation cp "${wheel}[litert]"
cp "$wheel" "$work/wheels/"
for one in "$work/wheels"/*.whl; do "$python" -m zipfile -e "$one" "$work/site"; done

if [[ -n $plugin ]] && ! "$qemu" -plugin "$plugin" -L "$work/root" "$work/root/usr/bin/python3.11" -c ""; then
  echo "$qemu cannot count instructions with $plugin: give one that was configured with --enable-plugins, see devices/README.md." >&2
  exit 2
fi
libraries=$work/root/usr/lib/aarch64-linux-gnu:$work/root/lib/aarch64-linux-gnu
checks=()
emulated() { # CORE [OPTION...] -- ARGUMENT...: golden.py there
  local options=(-cpu "$1" -L "$work/root"); shift
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  "$qemu" "${options[@]}" -E "PYTHONPATH=$work/site" -E "LD_LIBRARY_PATH=$libraries" -E OPENBLAS_NUM_THREADS=1 \
    "$work/root/usr/bin/python3.11" "$here/golden.py" "${@:2}"
}
for core in cortex-a72 cortex-a76; do
  echo "running as $core"
  emulated "$core" -- > "$work/$core.json"
  rm -f "$work/$core.instructions.json"
  if [[ -n $plugin ]]; then
    emulated "$core" -plugin "$plugin,inline=on" -d plugin -D "$work/$core.counts" -- --threads > "$work/$core.threads"
    "$python" "$here/golden.py" --instructions "$work/$core.threads" "$work/$core.counts" > "$work/$core.instructions.part"
    mv "$work/$core.instructions.part" "$work/$core.instructions.json"
  else
    echo "instructions are not counted: name an emulator with plugins (QEMU=... PLUGIN=..., see devices/README.md)"
  fi
  checks+=("$core=$work/$core.json")
done
"$python" "$here/golden.py" > "$work/here.json"
"$python" "$here/golden.py" --compare "$work/here.json" "${checks[@]}" > "$result.part" \
  || { echo "Another answer than here: see $result.part" >&2; exit 1; }
mv "$result.part" "$result"
echo "$result: written"
