#!/bin/sh
# The main job on synthetic images: draw, train, distil, quantise, export, verify, measure, predict.
# Run by `make demo`; what it says about accuracy says nothing about patients.
set -eu
place=${1:-$(mktemp -d "${TMPDIR:-/tmp}/octc-demo-XXXXXX")}
mkdir -p "$place"
cd "$place"
echo "demo in $place"
set -x
octc doctor || true
octc data phantom
octc data check phantom
octc train student --dataset phantom --recipe demo --with-teacher
octc export --fp32 --target onnx
# The gate is for students that are trained to the end: octc verify judges this one. FP16 where INT8 cannot be had at all.
octc export --int8 --target openvino --no-gate --allow-fallback
octc verify --margin 20 --class-margin 40 || test $? -eq 1 # 1: a verdict that is no pass; a student of five epochs is no product
octc bench --quick --batch 1 || test $? -eq 1 # 1: rows are INVALID where other programs keep the machine busy; it says which
octc predict Dataset/phantom/CellData/OCT/test/CNV
octc list runs
