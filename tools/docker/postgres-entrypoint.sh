#!/bin/sh
# Options of the server follow, as in the published image; it starts on /var/lib/postgresql/data.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data/cluster
test -f "$data/PG_VERSION" || "$bin/initdb" -D "$data" -A "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" -U postgres -E UTF8
grep -q '^host all all all' "$data/pg_hba.conf" || echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >> "$data/pg_hba.conf"
exec "$bin/postgres" -D "$data" -c listen_addresses='*' "$@"
