#!/usr/bin/env bash
# Make the passwords that compose.yaml and the Helm chart need, once:
#
#     deploy/secrets.sh                  # into deploy/secrets, for compose
#     deploy/secrets.sh DIR && kubectl create secret generic loadtest-store --from-file=DIR
#
# What is there is kept, so that running it again changes nothing; to rotate one, remove its file and run it again
# (docs/runbook.md says what to restart). ClickHouse itself is given hashes only, in users.xml.
set -euo pipefail
directory=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$directory"
# Containers run under other user ids than yours, so they must be able to read the files; on this machine nobody else
# gets past the directory.
chmod 0700 "$directory"

make_secret() {
    [ -s "$directory/$1" ] || head -c 24 /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_' > "$directory/$1"
    chmod 0444 "$directory/$1"
}

sha256_of() {
    sha256sum "$directory/$1" | cut -d ' ' -f 1
}

make_secret password
make_secret reader-password
make_secret grafana-admin-password
make_secret auth_token # Ray's, under the name that KubeRay asks for

rm -f "$directory/users.xml"
cat > "$directory/users.xml" <<EOF
<clickhouse>
    <profiles>
        <reader>
            <!-- 2: may read, and may set what a query needs, as Grafana's data source does -->
            <readonly>2</readonly>
            <max_execution_time>60</max_execution_time>
        </reader>
    </profiles>
    <users>
        <default remove="remove"/>
        <loadtest>
            <password_sha256_hex>$(sha256_of password)</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT ALL ON loadtest.*</query>
                <query>GRANT SELECT ON system.*</query>
            </grants>
        </loadtest>
        <reader>
            <password_sha256_hex>$(sha256_of reader-password)</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>reader</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT SELECT ON loadtest.*</query>
                <query>GRANT SELECT ON system.*</query>
            </grants>
        </reader>
    </users>
</clickhouse>
EOF
chmod 0444 "$directory/users.xml"
