#!/usr/bin/env bash
# Prints the folder that holds the Kubernetes programs of the tests, building
# them first where this content has not been built on this machine yet.
#
#   LANDFALL_KUBERNETES_BIN   a folder of ready programs to use instead
#   LANDFALL_CACHE            where builds are kept (~/.cache/landfall)
#
# Only the folder's path goes to standard output; progress goes to standard error.
set -euo pipefail
programs="etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet"
say() { echo "kubernetes: $*" >&2; }

if [ -n "${LANDFALL_KUBERNETES_BIN:-}" ]; then
  for program in $programs; do
    [ -x "$LANDFALL_KUBERNETES_BIN/$program" ] ||
      { say "LANDFALL_KUBERNETES_BIN=$LANDFALL_KUBERNETES_BIN has no program '$program'; put all of these there: $programs"; exit 1; }
  done
  echo "$LANDFALL_KUBERNETES_BIN"
  exit 0
fi

cd "$(dirname "$0")"
version=$(cat VERSION)
grep -q "k8s.io/kubernetes v$version\$" go.mod ||
  { say "go.mod is not for the version in VERSION ($version): run tests/kubernetes/go-mod.sh and commit what it writes"; exit 1; }
command -v go >/dev/null ||
  { say "Go is missing: install Go $(awk '$1 == "go" {print $2}' go.mod) or later (https://go.dev/dl), or set LANDFALL_KUBERNETES_BIN to a folder of Kubernetes $version programs"; exit 1; }

key=$(cat main.go go.mod go.sum build.sh <(go env GOVERSION GOARCH) | sha256sum | cut -c1-16)
store=${LANDFALL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/landfall}/kubernetes
folder=$store/v$version-$key
if [ ! -e "$folder/kubelet" ]; then
  mkdir -p "$store"
  exec 9> "$store/lock"
  flock -n 9 || { say "another build is under way; waiting for it (at most 40 minutes)"; flock -w 2400 9; }
fi
if [ ! -e "$folder/kubelet" ]; then
  say "building Kubernetes $version once for this machine: about 8 minutes on two cores"
  say "fetching modules"
  go mod download 2>&1 | tail -3 >&2
  total=$(go list -deps . | wc -l)
  work=$(mktemp -d "$store/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # What the programs say about themselves, and what clients of /version decide by.
  says="-X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=1"
  says="$says -X k8s.io/component-base/version.gitMinor=$(echo "$version" | cut -d. -f2)"
  started=$SECONDS
  log=$work/build.log
  # `go build -v` names each package as its compilation starts.
  set +e
  CGO_ENABLED=0 go build -v -buildvcs=false -trimpath -ldflags="-s -w $says" -o "$work/kubernetes" . 2>&1 |
    tee "$log" | awk -v total="$total" -v tty="$([ -t 2 ] && echo 1)" '
      { done = int(100 * NR / total) }
      done >= next_step { printf "kubernetes: %d%% (%d of %d packages)\n", done, NR, total > "/dev/stderr"; next_step = done + 5 }'
  status=${PIPESTATUS[0]}
  set -e
  if [ "$status" != 0 ]; then
    tail -20 "$log" >&2
    say "the build failed (above); free disk space and access to the Go module proxy are the usual causes"
    exit 1
  fi
  for program in $programs; do ln -s kubernetes "$work/$program"; done
  rm -rf "$folder"
  mv "$work" "$folder"
  trap - EXIT
  say "built in $((SECONDS - started)) s: $folder"
fi
echo "$folder"
