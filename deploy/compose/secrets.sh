#!/bin/sh
# Write the passwords of compose.yaml, unless they exist. Containers read them as other users, so the folder
# keeps others out.
set -eu
umask 077
folder=$(dirname "$0")/secrets
mkdir -p "$folder"
for name in postgres_password grafana_password push_key; do
    [ -s "$folder/$name" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
    chmod 0444 "$folder/$name"
done
echo "the passwords are in $folder"
