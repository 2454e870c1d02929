#!/usr/bin/env bash
# Installs the package on a Debian 12 made from nothing, boots that with its own systemd, and treats the service as its users and
# their machines do. Needs root, debootstrap and systemd-nspawn, and the network for Debian's packages.
#
#   tools/package/try.sh target/debian/groundd_….deb
set -euo pipefail

package=$(realpath "$1")
work=$(mktemp -d)
root=$work/debian
machine=""

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'try: %s\n' "$*" >&2; [ -z "$machine" ] || inside 'journalctl -u groundd --no-pager | tail -n 30' >&2; exit 1; }

for tool in debootstrap systemd-nspawn nsenter; do
    command -v $tool >/dev/null || die "no $tool here; apt install debootstrap systemd-container util-linux"
done
[ "$(id -u)" = 0 ] || die "a machine is made and booted, which only root may"

inside() { nsenter -t "$(pgrep -P "$machine")" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -c "$1"; }

# Within: what must become true, how many seconds it has, and the command that says so.
within() {
    local what=$1 seconds=$2
    for _ in $(seq "$((seconds * 2))"); do
        if inside "$3" >/dev/null 2>&1; then say "$what"; return; fi
        sleep 0.5
    done
    die "not within $seconds s: $what"
}

boot() {
    systemd-nspawn --quiet --register=no --keep-unit --private-network -D "$root" -b >"$work/console" 2>&1 &
    machine=$!
    for _ in $(seq 60); do
        inside 'systemctl is-active multi-user.target' >/dev/null 2>&1 && return
        sleep 0.5
    done
    die "the machine does not come up: $(tail -n 5 "$work/console")"
}

halt() {
    [ -n "$machine" ] || return 0
    inside 'systemctl poweroff' >/dev/null 2>&1 || kill "$machine" || true
    wait "$machine" 2>/dev/null || true
    machine=""
}

# systemd-nspawn clears its folder in /run and will not where that is on a disk, as in some containers.
shield=""
clean() { halt; [ -z "$shield" ] || umount "$shield"; rm -rf --one-file-system "$work"; }
trap clean EXIT
if [ "$(stat -f -c %T /run)" != tmpfs ] && ! mountpoint -q /run/systemd/nspawn; then
    shield=/run/systemd/nspawn
    mkdir -p $shield && mount -t tmpfs none $shield
fi

say "a Debian 12 from nothing"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,netbase bookworm "$root" >"$work/console" || die "$(tail -n 3 "$work/console")"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/root/groundd.deb"
say "apt install ./groundd.deb"
systemd-nspawn --quiet --register=no --keep-unit -D "$root" --pipe bash -c \
    'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q /root/groundd.deb' >"$work/console" 2>&1 ||
    die "$(tail -n 5 "$work/console")"

cat >"$root/etc/systemd/system/camera.service" <<'UNIT'
[Service]
ExecStart=/bin/sh -c "sleep infinity | groundd play /usr/share/groundd/demo.mp4 --port 8554"
[Install]
WantedBy=multi-user.target
UNIT
sed -i 's#^uri = .*#uri = "rtsp://127.0.0.1:8554/camera"#' "$root/etc/groundd/groundd.toml"

serving='systemctl is-active groundd && mosquitto_sub -W 5 -C 1 -t groundd/gate/person/present | grep ON'
boot
inside 'systemctl is-enabled groundd' >/dev/null && die "the service is on before anybody asked for it"
within "the camera of the service's own user passes groundd check" 10 \
    'systemctl enable --now camera; cd / && runuser -u groundd -- groundd check --config /etc/groundd/groundd.toml'
inside 'systemctl enable --now groundd'
within "people are seen on the camera" 20 "$serving"

inside 'systemctl kill -s KILL groundd'
within "killed, it is back" 20 "test \$(systemctl show -P NRestarts groundd) = 1 && $serving"
inside 'systemctl kill -s STOP groundd'
within "frozen, it is killed by the watchdog and is back" 100 "test \$(systemctl show -P NRestarts groundd) = 2 && $serving"

config=/etc/groundd/groundd.toml
inside "cp -p $config /root/good.toml && echo 'oops = 1' >> $config"
inside 'systemctl reload groundd' 2>/dev/null && die "a wrong file was taken"
within "a wrong file is refused, and the service goes on" 10 "$serving"
inside 'systemctl restart groundd' 2>/dev/null && die "it started by a wrong file"
sleep 5
within "by a wrong file it fails for good, and says where" 1 \
    'systemctl is-failed groundd && journalctl -u groundd | grep "groundd.toml: line .*oops"'
inside "cp -p /root/good.toml $config && systemctl reset-failed groundd && systemctl start groundd"
inside "sed -i 's/text = \"red car\"/text = \"bus\"/' $config && systemctl reload groundd"
within "a changed query is taken by a reload" 10 "journalctl -u groundd | grep reloaded && $serving"

before=$(inside 'systemctl show -P MainPID groundd')
inside 'apt-get install -y -q --reinstall /root/groundd.deb' >"$work/console" 2>&1 || die "$(tail -n 5 "$work/console")"
within "installed anew, it runs anew and keeps its file" 20 \
    "test \$(systemctl show -P MainPID groundd) != $before && grep '\"bus\"' $config && $serving"
halt
boot
within "after a reboot it is there" 30 "$serving"

inside 'apt-get purge -y -q groundd' >"$work/console" 2>&1 || die "$(tail -n 5 "$work/console")"
left=$(inside 'find / -xdev -path /root -prune -o -path /proc -prune -o -path /var/log -prune -o -name "*groundd*" -print')
[ -z "$left" ] || die "purged, it leaves $left"
say "purged, it leaves nothing"
