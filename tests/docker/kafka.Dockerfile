# Kafka for tests without a registry: the jars of our image, with the variables of the official one.
ARG GRANTLEDGER=grantledger:dev
FROM ${GRANTLEDGER}
COPY compose/kafka.sh /kafka.sh
HEALTHCHECK NONE
ENTRYPOINT ["sh", "/kafka.sh"]
CMD []
