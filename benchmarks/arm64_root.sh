#!/usr/bin/env bash
# An arm64 Debian in a folder, with what a device needs and nothing else: python3, numpy, tvm-ffi, msgspec.
#
#   benchmarks/arm64_root.sh /tmp/arm64root        (root; needs debootstrap and qemu-user-static; about two minutes)
#   chroot /tmp/arm64root /usr/bin/qemu-aarch64-static /usr/bin/python3
#
# Packages are unpacked, not configured: nothing in the folder runs while it is made, so no binfmt handler is needed.
set -euo pipefail
root=${1:?pass the folder to build in}
python=${PYTHON:-python3}
packages=(numpy apache-tvm-ffi==0.1.14.post1 msgspec typing_extensions)

if [ ! -e "$root/.unpacked" ]; then
    rm -rf "$root"
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 bookworm "$root"
    for package in "$root"/var/cache/apt/archives/*.deb; do # dpkg-deb --extract would put folders in place of /lib
        dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$root"
    done
    rm -rf "$root/var/cache/apt/archives" "$root/debootstrap" "$root/proc" && mkdir "$root/proc"
    touch "$root/.unpacked"
fi
"$python" -m pip install --quiet --upgrade --target "$root/v" --no-deps --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_24_aarch64 \
    --platform manylinux2014_aarch64 "${packages[@]}"
cp "$(command -v qemu-aarch64-static)" "$root/usr/bin/"
chroot "$root" /usr/bin/qemu-aarch64-static -E PYTHONPATH=/v /usr/bin/python3 -c '
import platform, numpy, msgspec
print("ready:", platform.machine(), "python", platform.python_version(), "numpy", numpy.__version__)'
