#!/bin/sh
# Verify the ledger and write the result for node_exporter's textfile collector.
#
#   verify-textfile.sh /var/lib/prometheus/node-exporter/grantledger_verify.prom [options of grantledger verify]
#
# Run it from cron or a timer, for example once a day. The exit code is that of verify: 0 sound, 1 tampered, 2 could not
# check, 3 behind, 4 sound, compared with nothing outside. Set GRANTLEDGER to the path of the program if it is not on the PATH.
set -u
if [ $# -lt 1 ]; then
    echo "usage: $0 FILE.prom [options of grantledger verify]" >&2
    exit 2
fi
file=$1
shift
"${GRANTLEDGER:-grantledger}" verify "$@"
code=$?
# Replace the file atomically, so that a scrape never reads half of it.
cat > "$file.$$" <<END || exit 2
# HELP grantledger_verify_exit_code Exit code of the last verification: 0 sound, 1 tampered, 2 could not check, 3 behind, 4 compared with nothing outside.
# TYPE grantledger_verify_exit_code gauge
grantledger_verify_exit_code $code
# HELP grantledger_verify_timestamp_seconds When the last verification ended.
# TYPE grantledger_verify_timestamp_seconds gauge
grantledger_verify_timestamp_seconds $(date +%s)
END
chmod 644 "$file.$$" && mv "$file.$$" "$file" || exit 2
exit $code
