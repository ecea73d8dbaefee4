#!/bin/sh
# The options are words with spaces between.
exec java ${KAFKA_HEAP_OPTS:-} ${KAFKA_JVM_PERFORMANCE_OPTS:-} -Dorg.slf4j.simpleLogger.defaultLogLevel=info \
  -cp '/opt/kafka/libs/*' kafka.Kafka "$@"
