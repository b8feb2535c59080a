#!/usr/bin/env bash
# System packages for Debian 12 and Ubuntu 22.04/24.04: compiler, Python, Vulkan loader and a Mesa that SAPIEN accepts.
# Needs root or sudo; without either it prints the exact commands and stops. Safe to run again.
set -euo pipefail

can_sudo() { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }
if [ "$(id -u)" -eq 0 ]; then mode=root; elif can_sudo; then mode=sudo; else mode=print; fi
as_root() {
    case $mode in
        root) env DEBIAN_FRONTEND=noninteractive "$@" ;;
        sudo) sudo env DEBIAN_FRONTEND=noninteractive "$@" ;;
        print) printf '%q ' "$@" && echo ;;
    esac
}

. /etc/os-release
packages=(build-essential cmake git ca-certificates libvulkan1 libgl1 libegl1 libglib2.0-0 libxext6)
python=
complete='import ensurepip, os, sysconfig, venv; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")'
for candidate in python3.11 python3.12; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "$complete" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    case "$ID-$VERSION_ID" in
        ubuntu-24.04) packages+=(python3.12 python3.12-venv python3.12-dev) ;;
        *) packages+=(python3.11 python3.11-venv python3.11-dev) ;; # Debian 12; Ubuntu 22.04 has it in universe
    esac
fi

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
        || dpkg-query -W -f '${Status}' "${package}t64" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
mesa=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || echo 0)
if dpkg --compare-versions "$mesa" lt 23.2; then mesa_missing=1; else mesa_missing=0; fi

# The tests of the server's page need a browser; where none can be had they are skipped, with the reason.
install_browser() {
    [ "$ID-$VERSION_ID" = debian-12 ] && [ $mode != print ] || return 0
    command -v chromium-headless-shell >/dev/null && return 0
    as_root apt-get update -q && as_root apt-get install -y -q --no-install-recommends chromium-headless-shell \
        || echo "No chromium-headless-shell could be installed: the tests of the page will be skipped."
}
if [ ${#missing[@]} -eq 0 ] && [ $mesa_missing -eq 0 ]; then
    install_browser
    exit 0
fi

if [ $mode = print ]; then echo "Neither root nor sudo: run these commands as root, then try again."; fi
if [ "$ID-$VERSION_ID" = debian-12 ] && [ $mesa_missing -eq 1 ]; then
    # Mesa 22.3 of Debian 12 lacks features that SAPIEN asks for: take 25.x from backports, off the mirror in use.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
    : "${mirror:?no apt source for bookworm found: run apt-get update first}"
    line="deb $mirror bookworm-backports main"
    as_root sh -c "echo '$line' > /etc/apt/sources.list.d/pirl-backports.list"
fi
as_root apt-get update -q
if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
if [ $mesa_missing -eq 1 ]; then
    release=()
    [ "$ID-$VERSION_ID" = debian-12 ] && release=(-t bookworm-backports)
    as_root apt-get install -y -q --no-install-recommends "${release[@]}" mesa-vulkan-drivers
fi
install_browser
[ $mode != print ]
