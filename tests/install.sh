#!/usr/bin/env bash
# Installs the Debian packages that the lab needs, where they are missing.
set -euo pipefail
say() { echo "install: $*" >&2; }

# package: a file that is there once it is installed
needed="
buildah:/usr/bin/buildah
conntrack:/usr/sbin/conntrack
containerd:/usr/bin/containerd
containernetworking-plugins:/usr/lib/cni/ptp
curl:/usr/bin/curl
frr:/usr/lib/frr/bfdd
iproute2:/usr/bin/ip
iptables:/usr/sbin/iptables
nftables:/usr/sbin/nft
redis-server:/usr/bin/redis-server
runc:/usr/sbin/runc
util-linux:/usr/bin/setpriv
"
missing=()
for line in $needed; do [ -e "${line#*:}" ] || missing+=("${line%%:*}"); done
if [ ${#missing[@]} = 0 ]; then
  say "all Debian packages that the lab needs are installed"
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  say "this is not Debian (no apt-get): install what holds these programs with your own package manager, then run this again:"
  for line in $needed; do [ -e "${line#*:}" ] || say "  ${line#*:}   (Debian: ${line%%:*})"; done
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  say "not root: run this, then try again:  sudo apt-get update && sudo apt-get install --no-install-recommends -y ${missing[*]}"
  exit 1
fi
say "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The lab starts a containerd of its own for each node, and tests their own FRR and Redis: the services of the machine are
# not wanted.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq || { say "apt-get update failed: is the network up?"; exit 1; }
apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2 || { say "apt-get could not install ${missing[*]} (see above)"; exit 1; }
say "installed"
