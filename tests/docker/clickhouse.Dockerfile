# ClickHouse for tests without a registry: the embedded engine of our image behind HTTP, with the variables of the
# official image.
ARG GRANTLEDGER=grantledger:dev
FROM ${GRANTLEDGER}
COPY clickhouse_server.py /clickhouse_server.py
ENV HOST=0.0.0.0
HEALTHCHECK NONE
ENTRYPOINT ["sh", "-c", "exec python /clickhouse_server.py /data/engine 8123 \"$CLICKHOUSE_USER\" \"$CLICKHOUSE_PASSWORD\""]
CMD []
