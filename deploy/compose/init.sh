#!/bin/sh
# The service `init` of docker-compose.yml: topics, tables and keys, then to each process the keys that it needs.
# /data has all keys. The other volumes are those of the processes. The argument is for tests: another root folder.
set -eu
umask 077
root=${1:-}

grantledger policy check "$root/compose/policy.toml" > /dev/null
cp "$root/compose/policy.toml" "$root/volumes/policy/policy.toml"

# An interrupted init creates the log key last, and can run again.
if [ -e "$root/data/keys/log.pem" ]; then
    grantledger topics create
else
    grantledger init
fi

# The database, the tables and the views, of this version; as the administrator, whose password no process has.
grantledger init --clickhouse-roles --quiet > /dev/null

# give VOLUME FILE…: copy these keys to a volume. A key that is there already stays.
give() {
    volume=$root/volumes/$1
    shift
    mkdir -p "$volume/keys/sources"
    for key in log.pub "$@"; do
        [ -e "$volume/keys/$key" ] && continue
        cp "$root/data/keys/$key" "$volume/keys/$key.new"
        mv "$volume/keys/$key.new" "$volume/keys/$key"
    done
}

for process in seal anchor; do
    give "$process" log.pem "sources/grantledger-$process.pem" sources/grantledger-reader.pem
done
for process in store watch sweep alert; do
    give "$process" "sources/grantledger-$process.pem" sources/grantledger-reader.pem
done
give enforce sources/grantledger-enforcer.pem sources/grantledger-reader.pem
give verify
give operator sources/grantledger-operator.pem sources/grantledger-reader.pem
