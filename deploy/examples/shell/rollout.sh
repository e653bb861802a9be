#!/bin/sh
# A rollout script for a shell with curl: push ring after ring, a part at a time, only while Cordon says proceed.
#
#   ROLLOUT=r-... CORDON_TOKEN=... PUSH=./push ROLLBACK=./rollback ./rollout.sh canary early broad
#
# It asks the verdict endpoint before each part, and takes no answer, an error and a time-out for a hold. The answer is not
# signed: use TLS where the way to Cordon is not your own, or the Python script beside this one. Ends with 0 when everything
# was pushed, 3 when the rollout was killed (after ROLLBACK), 4 when PATIENCE ran out, 2 when it was called wrongly: a ring
# or rollout that there is not (400, 404), a token that may not ask (401, 403).
set -u

URL=${URL:-http://127.0.0.1:8401}
PARTS=${PARTS:-4}
PATIENCE=${PATIENCE:-3600}
: "${ROLLOUT:?the rollout, as POST /v1/rollouts answered it}"
: "${CORDON_TOKEN:?a token with the role rollout}"
: "${PUSH:?the command that pushes; it gets the ring and the part}"
: "${ROLLBACK:?the command that rolls back; it gets the ring}"
[ $# -gt 0 ] || { echo "name the rings in their order" >&2; exit 2; }

# Prints proceed, killed, hold or wrong. The answer says "proceed":true only while a lease holds and nothing stops this ring.
ask() {
    said=$(curl --silent --max-time 5 --get --data-urlencode "ring=$1" --write-out 'status=%{http_code}' \
        --header "authorization: Bearer $CORDON_TOKEN" "$URL/v1/rollouts/$ROLLOUT/verdict") || said=
    case $said in
    *'"killed":true'*status=200) echo killed ;;
    *'"proceed":true'*status=200) echo proceed ;;
    *status=40[0134]) echo "$said" >&2 && echo wrong ;;
    *) echo hold ;;
    esac
}

for ring in "$@"; do
    part=1
    while [ "$part" -le "$PARTS" ]; do
        until=$(($(date +%s) + PATIENCE))
        while now=$(ask "$ring") && [ "$now" = hold ] && [ "$(date +%s)" -lt "$until" ]; do
            sleep 1
        done
        case $now in
        killed)
            echo "killed, rolling back"
            $ROLLBACK "$ring"
            exit 3
            ;;
        wrong)
            echo "this can't be asked, nothing more is pushed"
            exit 2
            ;;
        hold)
            echo "no proceed within $PATIENCE s, nothing more is pushed"
            exit 4
            ;;
        esac
        echo "$ring, part $part of $PARTS"
        $PUSH "$ring" "$part" || exit 1
        part=$((part + 1))
    done
done
