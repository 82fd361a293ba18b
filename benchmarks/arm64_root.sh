#!/bin/sh
# qemu-user and a Debian arm64 root with the device side of octc, for `octc verify --emulate`:
#
#     sh benchmarks/arm64_root.sh DIR [EXTRAS]      # EXTRAS of octc there: ort,openvino,litert where it is left out
#     PATH=DIR/bin:$PATH octc verify ARTIFACT --emulate aarch64,x86-64-v3 --emulate-root DIR/arm64
#
# On a Debian machine (apt, dpkg, Python with pip). Nothing is installed: apt uses lists of its own, packages are unpacked into
# DIR, and wheels of the other processor are put beside Debian's Python. About 600 MB and half a minute; what is there already,
# of this checkout's pyproject.toml and constraints.txt, is left as it is.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 1 ] || { sed -n 2,9p "$0"; exit 2; }
mkdir -p "$1" && dir=$(cd "$1" && pwd)
extras=${2:-ort,openvino,litert}
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
ready=$dir/ready-$(cat "$here/pyproject.toml" "$here/constraints.txt" "$0" /etc/os-release | cksum | cut -d' ' -f1)-$extras
if [ -e "$ready" ]; then echo "$dir is ready"; exit 0; fi
python=${PYTHON:-$(test -x "$here/.venv/bin/python" && echo "$here/.venv/bin/python" || command -v python3)}
work=$dir/work # moved to its place when it is whole
rm -rf "$work"
mkdir -p "$work/arm64" "$work/bin" "$work/lists/partial" "$work/archives/partial" "$work/qemu"

# the archive that this machine uses; emulators of version 10 are in backports of Debian 12 and in Debian 13 itself
archive=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
[ -n "$archive" ] || { echo "no Debian archive among this machine's apt sources" >&2; exit 1; }
key=/usr/share/keyrings/debian-archive-keyring.gpg
for name in "$suite" "$suite-backports"; do
  echo "deb [arch=amd64,arm64 signed-by=$key] $archive $name main"
done > "$work/sources.list"
: > "$work/status"
# apt for an architecture, as on a machine on which nothing is installed
own_apt() {
  architecture=$1; shift
  apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$work/lists" \
    -o Dir::State::status="$work/status" -o Dir::Cache="$work" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
    -o APT::Install-Recommends=0 -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" "$@"
}
unpack() {
  for package in "$work"/archives/*.deb; do dpkg-deb -x "$package" "$1"; rm "$package"; done
}
host=$(dpkg --print-architecture)
own_apt "$host" update
case $suite in bookworm) from=-t=bookworm-backports ;; *) from= ;; esac
(cd "$work/archives" && own_apt "$host" $from download qemu-user)
unpack "$work/qemu"
cp "$work/qemu/usr/bin/qemu-aarch64" "$work/qemu/usr/bin/qemu-x86_64" "$work/bin/"
own_apt arm64 update
own_apt arm64 -y --download-only install python3 libstdc++6
unpack "$work/arm64"

version=$(basename "$(ls -d "$work"/arm64/usr/bin/python3.[0-9]*[0-9] | head -n 1)" | sed s/python//)
"$python" -m pip wheel -q --no-deps -w "$work/wheels" "$here"
wheel=$(ls "$work"/wheels/octc-*.whl)
platforms=$(for libc in 2_17 2_27 2_28 2_31 2_34 2_35; do echo "--platform manylinux_${libc}_aarch64"; done)
# shellcheck disable=SC2086
"$python" -m pip install -q --target "$work/arm64/usr/lib/python3/dist-packages" --implementation cp --python-version "$version" \
  $platforms --only-binary=:all: -c "$here/constraints.txt" "octc[$extras] @ file://$wheel"
"$work/bin/qemu-aarch64" -L "$work/arm64" "$work/arm64/usr/bin/python$version" -c "import platform, octc; print(platform.machine())"
rm -rf "$dir/arm64" "$dir/bin" "$dir"/ready-*
mv "$work/arm64" "$work/bin" "$dir"
rm -rf "$work"
touch "$ready"
