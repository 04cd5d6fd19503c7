#!/usr/bin/env bash
# Writes go.mod and go.sum in this folder for the Kubernetes version in VERSION.
#
# k8s.io/kubernetes asks for its own staging modules at v0.0.0 and replaces them
# by folders that exist only in its repository, so whoever imports it must
# replace each of them by the published module of the same release.
set -euo pipefail
cd "$(dirname "$0")"
version=$(cat VERSION)
minor=${version#1.}

upstream=$(cd "$(mktemp -d)" && go mod download -json "k8s.io/kubernetes@v$version" |
  sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
go_version=$(awk '$1 == "go" {print $2; exit}' "$upstream")

{
  echo "module landfall.dev/tests/kubernetes"
  echo
  echo "go $go_version"
  echo
  echo "require ("
  echo "	k8s.io/kubernetes v$version"
  awk '$1 ~ /^go.etcd.io\/etcd\/server\/v3$/ {print "\t" $1, $2}' "$upstream"
  echo ")"
  echo
  echo "replace ("
  awk -v release="v0.$minor" '$1 ~ /^k8s.io\// && $2 == "v0.0.0" {print "\t" $1 " => " $1, release}' "$upstream" | sort -u
  echo ")"
} > go.mod
rm -f go.sum
go mod tidy
