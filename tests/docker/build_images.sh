#!/bin/sh
# Builds the images of the tests: our own, and those that stand in for Kafka and ClickHouse. `make test-docker` calls it.
#
# The base is BASE, or the official one that the Dockerfile names, or else, where that cannot be had, one that debootstrap
# makes from Debian's packages: for that, run as root. DOCKER is a client with BuildKit.
set -eu
cd "$(dirname "$0")/../.."
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1

has() {
    "$docker" image inspect "$1" > /dev/null 2>&1 || "$docker" pull --quiet "$1"
}

"$docker" info > /dev/null || { echo "no Docker engine answers"; exit 1; }
base=${BASE:-$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)}
if ! has "$base"; then
    echo "$base cannot be had: the base is made with debootstrap"
    base=grantledger-base:bookworm
    if ! "$docker" image inspect "$base" > /dev/null 2>&1; then
        root=$(mktemp -d)
        trap 'rm -rf "$root"' EXIT
        debootstrap --variant=minbase --include=python3-venv,python-is-python3,ca-certificates bookworm "$root" \
            ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} > "$root.log" || { tail "$root.log"; exit 1; }
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root.log"
        tar -C "$root" -c . | "$docker" import --change 'ENV LANG=C.UTF-8' --change 'CMD ["python"]' - "$base"
    fi
fi

set -- --build-arg "BASE=$base" --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' __init__.py)"
set -- "$@" --build-arg "REVISION=$(git rev-parse HEAD 2> /dev/null || true)"
for secret in "ca=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}" "pip=${PIP_CONFIG_FILE:-$HOME/.config/pip/pip.conf}" \
    "jgo=$HOME/.config/jgo.conf"; do
    [ ! -e "${secret#*=}" ] || set -- "$@" --secret "id=${secret%%=*},src=${secret#*=}"
done
"$docker" build "$@" --file deploy/Dockerfile --tag grantledger:dev .
"$docker" build --file tests/docker/kafka.Dockerfile --tag grantledger-kafka:dev tests/support
"$docker" build --file tests/docker/clickhouse.Dockerfile --tag grantledger-clickhouse:dev tests/support
