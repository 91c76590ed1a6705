#!/usr/bin/env bash
# Builds the image: with docker where its daemon answers, else with buildah, as root, on a base made from the Debian
# archive, so that neither a daemon nor a registry is needed. NAME is the image's name, TARGET and TORCH as in the
# Dockerfile. Of pip's own settings the folder of PIP_FIND_LINKS and the certificates of SSL_CERT_FILE are passed on.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${NAME:-localhost/spheroidd:latest}
stamp=$(git log -1 --format=%ct 2> /dev/null || echo 0)
arguments=(--file deploy/Dockerfile --tag "$name" --build-arg "TORCH=${TORCH:-cpu}")
[ -z "${TARGET:-}" ] || arguments+=(--target "$TARGET")
if [ "${BUILDER:-}" != buildah ] && docker info > /dev/null 2>&1; then
  exec docker build "${arguments[@]}" .
fi
if ! command -v buildah > /dev/null || ! command -v podman > /dev/null || ! command -v mmdebstrap > /dev/null; then
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends buildah podman runc mmdebstrap uidmap > /dev/null
fi
base=localhost/python-base:bookworm
if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  tar=${BASE_TAR:-$folder/base.tar}
  [ -f "$tar" ] || mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$tar"
  podman import --quiet "$tar" "$base" > /dev/null
fi
arguments+=(--build-arg "BASE=$base" --isolation chroot --format docker --layers --timestamp "$stamp")
if [ -d "${PIP_FIND_LINKS:-}" ]; then
  arguments+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro" --build-arg "PIP_ARGS=--find-links $PIP_FIND_LINKS")
fi
[ -z "${NO_CACHE:-}" ] || arguments+=(--no-cache)
[ ! -f "${SSL_CERT_FILE:-}" ] || arguments+=(--volume "$SSL_CERT_FILE:/etc/ssl/certs/ca-certificates.crt:ro")
exec buildah build "${arguments[@]}" .
