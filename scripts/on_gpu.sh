#!/usr/bin/env bash
# Measures this project on an NVIDIA GPU, in about 12 minutes of an H100 or H200: tests, speed against torchvision's on
# the same GPU, time by stage, and memory. Needs no network, no TensorFlow and no installation of the project.
#
#     scripts/on_gpu.sh                     # from a clone; results are in on_gpu_results/
#     OUT=/tmp/gpu BUDGET=540 scripts/on_gpu.sh
#     scripts/on_gpu.sh bfloat16 profile    # these parts only
#     QUICK=1 scripts/on_gpu.sh             # a trial of every part with a tiny model, on any machine
#
# Parts run in the order of their value, each with a time limit. What a part has measured is kept if it is cut off, and
# a part that is done is not run again, so the script may be started again. In $OUT:
#
#     log.txt         everything that was printed
#     results.jsonl   a line of JSON for each part: {"part": ..., "done": ..., "numbers": ...}
#     done.txt        the parts that are done
#
# Goals: 3 times torchvision's speed (the column "ratio") in training and inference; RoIAlign at 50 % of a copy's
# bandwidth ("of copy").
#
# The machine needs Python 3.11 or newer with jax (and its CUDA plugin), flax, optax, orbax, jaxtyping, absl-py, Pillow,
# PyYAML, safetensors and tqdm; for the tests also pytest, pytest-xdist and hypothesis. What else a part needs is brought
# along in the folder on_gpu_site, made on a machine with a network (for Python 3.12):
#
#     pip install --target=on_gpu_site --no-deps --only-binary=:all: --python-version=3.12 \
#         --platform=manylinux_2_28_x86_64 --platform=manylinux_2_17_x86_64 ml_collections beartype pycocotools
#
# With torch and torchvision, in the same Python or in that of PEER=PYTHON, the speed is compared; for inference this
# needs pycocotools, which encodes the masks.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

OUT=${OUT:-on_gpu_results}
QUICK=${QUICK:-}
BUDGET=${BUDGET:-${QUICK:+3600}} # seconds in all
BUDGET=${BUDGET:-720}
PYTHON=${PYTHON:-python3}
PEER=${PEER:-$PYTHON}
ONLY=("$@")

mkdir -p "$OUT"
touch "$OUT/done.txt"
exec > >(tee -a "$OUT/log.txt") 2>&1
export PYTHONPATH=$PWD:$PWD/on_gpu_site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# The CPU, too, as its client counts operations.
export JAX_PLATFORMS=${JAX_PLATFORMS:-$(command -v nvidia-smi >/dev/null && echo cuda,cpu || echo cpu)}

has() { "$1" -c "import ${2//,/, }" 2>/dev/null; }

# part NAME LIMIT COMMAND ...: runs a command for at most LIMIT seconds, and keeps the numbers in $json.
json=$OUT/numbers.json
part() {
    local name=$1 limit=${QUICK:+600} left=$((BUDGET - SECONDS)) code=0
    limit=${limit:-$2}
    shift 2
    if [[ ${#ONLY[@]} -gt 0 && " ${ONLY[*]} " != *" $name "* ]]; then return; fi
    if grep -qx "$name" "$OUT/done.txt"; then
        echo "== $name: done before"
        return
    fi
    if ((left < 15)); then
        echo "== $name: not started, as the $BUDGET seconds are over"
        return
    fi
    ((limit < left)) || limit=$left
    rm -f "$json"
    local start=$SECONDS
    echo "== $name: at most $limit s"
    timeout --kill-after=10 "$limit" "$@" || code=$?
    echo "== $name: $((SECONDS - start)) s, exit code $code"
    ((code)) || echo "$name" >>"$OUT/done.txt"
    [[ -s $json ]] || return
    "$PYTHON" -c 'import json, sys; print(json.dumps({"part": sys.argv[1], "done": sys.argv[2] == "0",
        "numbers": json.load(open(sys.argv[3]))}))' "$name" "$code" "$json" >>"$OUT/results.jsonl"
    rm -f "$json"
}

environment() {
    command -v nvidia-smi >/dev/null && nvidia-smi
    "$PYTHON" - <<'END'
import importlib.metadata, os, platform, sys
print("Python", sys.version.split()[0], platform.platform(), os.cpu_count(), "cores")
for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "torchvision", "pycocotools",
             "ml_collections", "beartype", "jaxtyping", "tensorflow"):
    try:
        print(f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        print(f"{name} is absent")
import jax
print(jax.devices(), jax.default_backend())
END
    git log -1 --format='commit %h, %s' 2>/dev/null
    return 0
}

echo "== $(date -u '+%F %T') UTC"
if [[ ${#ONLY[@]} -eq 0 ]]; then environment; fi
for module in jax flax optax orbax.checkpoint jaxtyping absl PIL yaml safetensors tqdm ml_collections; do
    if ! has "$PYTHON" "$module"; then
        echo "error: $PYTHON has no $module; see the beginning of $0"
        exit 1
    fi
done

# Peers: for the ops and training, and, if results can be encoded there, for inference.
peer=() encoding_peer=()
if has "$PEER" torch,torchvision; then
    peer=(--peer="$PEER")
    if has "$PEER" pycocotools; then
        encoding_peer=("${peer[@]}")
    else
        echo "== inference is not compared with torchvision: $PEER has no pycocotools"
    fi
else
    echo "== nothing is compared with torchvision: $PEER has no torch and torchvision"
fi

if [[ $QUICK ]]; then
    TURNS=1 BATCH=1 train=train_step_b1 infer=inference_b1 WORKERS=0
    OPS=roi_align NMS=nms_64 TESTS=(tests/ops/test_boxes.py) ROI=(--only=misalignment)
    MODEL=(
        --config.model.{backbone_depth=18,backbone_width=8,fpn_channels=16,box_channels=16,mask_convs=1,mask_channels=8}
        "--config.data.canvases=((128,128),)" --config.data.{long_side=128,max_objects=4,mask_grid=28}
        --config.train.{rpn_samples=16,rpn_pre_nms=32,rpn_post_nms=16,roi_samples=16}
        --config.test.{rpn_pre_nms=32,rpn_post_nms=16,candidates=64,detections=8}
    )
else
    TURNS=3 BATCH=8 train=train_step_b8,train_step_b16 infer=inference_b1,inference_b8 WORKERS=8
    OPS=roi_align,roi_align_grad,roi_align_adaptive,roi_pool NMS=nms_1024,nms_2048,nms_4096,nms_8819
    TESTS=(tests/ops tests/models) ROI=('--only=pyramid,forms')
    MODEL=()
fi
run=("$PYTHON" -m mrcnn_jax benchmark)
speed=("${run[@]}" speed --turns="$TURNS" --json="$json")
profile=("${run[@]}" profile --json="$json")
bfloat16=("${MODEL[@]}" --config.model.dtype=bfloat16)
float32=("${MODEL[@]}" --config.model.dtype=float32)

part ops 120 "${speed[@]}" "${peer[@]}" --only="$OPS,$NMS"
if has "$PYTHON" pytest,xdist,hypothesis,beartype; then
    # Full float32, as results are compared with references; warnings of other versions are no errors.
    part tests 150 env JAX_DEFAULT_MATMUL_PRECISION=highest XLA_PYTHON_CLIENT_PREALLOCATE=false \
        "$PYTHON" -m pytest -q -n "$WORKERS" --dist=loadfile -W default -p no:cacheprovider --tb=short \
        --maxfail=40 "${TESTS[@]}"
else
    echo "== tests: $PYTHON lacks pytest, pytest-xdist, hypothesis or beartype"
fi
part bfloat16_train 240 "${speed[@]}" "${peer[@]}" "${bfloat16[@]}" --only="$train"
part bfloat16_inference 120 "${speed[@]}" "${encoding_peer[@]}" "${bfloat16[@]}" --only="$infer"
part profile_train 120 "${profile[@]}" "${bfloat16[@]}" --work=train --batch_size="$BATCH"
part roi 120 "${run[@]}" roi --turns="$TURNS" --json="$json" "${ROI[@]}"
part tf32_train 240 "${speed[@]}" "${peer[@]}" "${float32[@]}" --only="$train"
part tf32_inference 120 "${speed[@]}" "${encoding_peer[@]}" "${float32[@]}" --only="$infer"
part memory 150 "${speed[@]}" "${peer[@]}" "${bfloat16[@]}" --only=train_memory --train_batch_size="$BATCH"
part profile_inference 90 "${profile[@]}" "${bfloat16[@]}" --work=predict --batch_size=1
part float32_train 240 "${speed[@]}" "${peer[@]}" "${float32[@]}" --precision=highest --only="$train"
part float32_inference 120 "${speed[@]}" "${encoding_peer[@]}" "${float32[@]}" --precision=highest --only="$infer"

echo "== $SECONDS s; done: $(tr '\n' ' ' <"$OUT/done.txt")"
