#!/bin/bash
# The contract of Cassandra's official image: settings by environment, then the command, as the user cassandra.
set -e

if [ "$#" -eq 0 ] || [ "${1#-}" != "$1" ]; then
  set -- cassandra -f "$@"
fi

if [ "$1" = cassandra ] && [ "$(id -u)" = 0 ]; then
  find "$CASSANDRA_CONF" /var/lib/cassandra /var/log/cassandra \! -user cassandra -exec chown cassandra:cassandra '{}' +
  exec setpriv --reuid=cassandra --regid=cassandra --clear-groups "${BASH_SOURCE[0]}" "$@"
fi

own_address() {
  hostname -i | cut -d' ' -f1
}

if [ "$1" = cassandra ]; then
  : "${CASSANDRA_RPC_ADDRESS=0.0.0.0}"
  : "${CASSANDRA_LISTEN_ADDRESS=auto}"
  [ "$CASSANDRA_LISTEN_ADDRESS" != auto ] || CASSANDRA_LISTEN_ADDRESS=$(own_address)
  : "${CASSANDRA_BROADCAST_ADDRESS=$CASSANDRA_LISTEN_ADDRESS}"
  [ "$CASSANDRA_BROADCAST_ADDRESS" != auto ] || CASSANDRA_BROADCAST_ADDRESS=$(own_address)
  : "${CASSANDRA_BROADCAST_RPC_ADDRESS:=$CASSANDRA_BROADCAST_ADDRESS}"
  : "${CASSANDRA_SEEDS:=$CASSANDRA_BROADCAST_ADDRESS}"

  yaml=$CASSANDRA_CONF/cassandra.yaml
  changed=$(sed -r "s/(- seeds:).*/\1 \"$CASSANDRA_SEEDS\"/" "$yaml")
  for name in broadcast_address broadcast_rpc_address cluster_name endpoint_snitch listen_address num_tokens rpc_address; do
    variable=CASSANDRA_${name^^}
    if [ -n "${!variable}" ]; then
      changed=$(sed -r "s/^(# )?($name:).*/\2 ${!variable}/" <<<"$changed")
    fi
  done
  printf '%s\n' "$changed" >"$yaml"
  for name in dc rack; do
    variable=CASSANDRA_${name^^}
    if [ -n "${!variable}" ]; then
      rackdc=$CASSANDRA_CONF/cassandra-rackdc.properties
      changed=$(sed -r "s/^($name=).*/\1${!variable}/" "$rackdc")
      printf '%s\n' "$changed" >"$rackdc"
    fi
  done
fi

exec "$@"
