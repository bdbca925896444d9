#!/usr/bin/env bash
# Makes nca-edge start with the board, as a service that systemd watches; may be run again after an update.
# Usage: sudo ./setup-service.sh [HOME]     HOME: the environment that setup-*.sh made, /opt/nca-edge unless told otherwise.
# Undo: sudo systemctl disable --now nca-edge. Sessions stay in /var/lib/nca-edge.
# NCA_EDGE_ROOT puts the files under another folder, for an image that is being built; then nothing is started.
set -euo pipefail

die() { echo "$*" >&2; exit 2; }

home=${1:-/opt/nca-edge}
root=${NCA_EDGE_ROOT:-}
unit=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/nca-edge.service

[[ -f $unit ]] || die "nca-edge.service is not beside this script: copy both."
[[ $home == /* ]] || die "$home: give the whole path, from /."
[[ $home != *[[:space:]%]* ]] || die "$home: systemd reads spaces and percent signs in another way; choose another folder."
[[ -x $root$home/bin/nca-edge ]] || die "There is no $root$home/bin/nca-edge: first run NCA_EDGE_HOME=$home ./setup-raspberry-pi.sh (or ./setup-jetson.sh)."
case $home in
  /home/* | /root/* | /run/user/*) die "$home: the service may not read homes; install into /opt/nca-edge with NCA_EDGE_HOME." ;;
esac
[[ -n $root || $EUID == 0 ]] || die "This needs the right to install a service: sudo $0 $*"

install -D -m 0644 "$unit" "$root/etc/systemd/system/nca-edge.service"
sed -i "s|^ExecStart=/opt/nca-edge/|ExecStart=$home/|" "$root/etc/systemd/system/nca-edge.service"
install -d "$root/usr/lib/sysusers.d"
echo 'u nca-edge - "nca-edge" /var/lib/nca-edge' > "$root/usr/lib/sysusers.d/nca-edge.conf"
if [[ ! -e $root/etc/default/nca-edge ]]; then # what a person wrote there stays
  install -d "$root/etc/default"
  printf '%s\n' '# Options of nca-edge serve, such as --um-per-px 0.1 --target 100; systemctl restart nca-edge reads them.' \
    '#NCA_EDGE_OPTIONS=' > "$root/etc/default/nca-edge"
fi
[[ -z $root ]] || exit 0

systemd-sysusers nca-edge.conf
systemctl daemon-reload
systemctl enable nca-edge.service
systemctl restart nca-edge.service || die "It did not start; journalctl -u nca-edge says why."
echo "It runs, and starts with the board. Watch it with: journalctl -fu nca-edge"
