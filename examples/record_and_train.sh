#!/usr/bin/env bash
# The whole road at a small size: record VizDoom, train a tokenizer and a world on it, measure it, make a video.
# On two cores this takes about three hours and gives a soft dream; more HOURS and minutes give a better one.
#
#     examples/record_and_train.sh                    # into runs/my-world
#     OUT=/tmp/try HOURS=0.02 TOKENIZER_MINUTES=1 WORLD_MINUTES=1 examples/record_and_train.sh
set -euo pipefail

OUT=${OUT:-runs/my-world}
HOURS=${HOURS:-1}
TOKENIZER_MINUTES=${TOKENIZER_MINUTES:-30}
WORLD_MINUTES=${WORLD_MINUTES:-120}

mkdir -p "$OUT"
reverie record vizdoom --hours "$HOURS" --processes 2 -o "$OUT/train"
reverie record vizdoom --hours 0.1 --heldout -o "$OUT/heldout"

reverie train tokenizer --data "$OUT/train" --held-out "$OUT/heldout" --minutes "$TOKENIZER_MINUTES" -o "$OUT/tokenizer"
reverie train world --data "$OUT/train" --held-out "$OUT/heldout" --tokenizer "$OUT/tokenizer" \
    --minutes "$WORLD_MINUTES" --fov-deg 105.4 --name my-world -o "$OUT/world"

reverie evaluate "$OUT/world/model" --data "$OUT/heldout" --quick -o "$OUT/report"
echo "play it: reverie play --model $OUT/world/model"
