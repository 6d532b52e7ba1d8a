#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Base image from Debian packages: what mmdebstrap runs after it has unpacked them ("extract" variant: no package is
# configured, no package manager database). $1 is the root of the new image. See lab/base_image.py.
set -eu
cd "$1"

# Facts of this machine that mmdebstrap copied in for its own use.
rm -f etc/hostname etc/resolv.conf

# What a Python service never opens. (mmdebstrap still needs its own files below apt and dpkg.)
rm -rf etc/cron.daily usr/share/bash-completion usr/share/bug usr/share/debconf usr/share/doc-base usr/share/dpkg \
    usr/share/info usr/share/initramfs-tools usr/share/lintian usr/share/perl5 usr/share/pixmaps usr/share/zoneinfo \
    usr/bin/debconf* usr/bin/dpkg* \
    usr/lib/*/gconv usr/lib/*/libdb-5* usr/lib/python3*/pydoc_data usr/lib/python3*/test \
    usr/lib/python3*/lib-dynload/_dbm* usr/lib/python3*/lib-dynload/_test*

# A shell and its tools, for `./inv shell`.
chroot . busybox --install -s /usr/bin

# The configuration step that would compile the standard library did not run; the root is read-only later.
for folder in usr/lib/python3*; do
    chroot . python3 -m compileall -q --invalidation-mode unchecked-hash "/$folder"
done
