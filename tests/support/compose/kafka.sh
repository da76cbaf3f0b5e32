#!/bin/sh
# Runs Kafka as the official image does: a property for each KAFKA_… variable, a formatted folder, the broker.
set -eu
env | grep '^KAFKA_' | while IFS='=' read -r name value; do
    printf '%s=%s\n' "$(printf %s "${name#KAFKA_}" | tr 'A-Z_' 'a-z.')" "$value"
done > /tmp/server.properties
java=$(python -c 'from grantledger.runtime.java import find_java; print(find_java().path)')
set -- "$java" -Xmx512m -cp "$(echo "$XDG_CACHE_HOME"/grantledger/kafka-*/)*"
"$@" kafka.tools.StorageTool format --ignore-formatted -t 5L6g3nShT-eMCtK--X86sw -c /tmp/server.properties
exec "$@" kafka.Kafka /tmp/server.properties
