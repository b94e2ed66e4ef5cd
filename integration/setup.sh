#!/bin/sh
# setup.sh build|test|demo
#
# Installs what the build, the tests or the demo lack, by apt-get and as root
# or through sudo, and says so before it does. Where that isn't possible it
# says what is missing: the build fails later, tests skip with a reason.
set -eu

# "program:package", or "=package" for what has no program.
build='gcc:gcc pkg-config:pkg-config =libc6-dev =libseccomp-dev'
demo='newuidmap:uidmap busybox:busybox-static'
tests="$demo buildah:buildah skopeo:skopeo umoci:umoci crun:crun runc:runc docker-registry:docker-registry mmdebstrap:mmdebstrap fuse-overlayfs:fuse-overlayfs pasta:passt slirp4netns:slirp4netns setcap:libcap2-bin qemu-aarch64-static:qemu-user-static git:git strace:strace"

missing() {
	for want; do
		case $want in
		=*) dpkg-query -W -f '${db:Status-Status}\n' "${want#=}" 2>/dev/null | grep -qx installed || echo "${want#=}" ;;
		*) PATH=$PATH:/usr/sbin:/sbin command -v "${want%%:*}" >/dev/null || echo "${want#*:}" ;;
		esac
	done
}

case ${1-} in
build) set -- $build ;;
demo) set -- $demo ;;
test) set -- $tests ;;
*) echo "usage: setup.sh build|test|demo" >&2; exit 2 ;;
esac

packages=$(missing "$@" | tr '\n' ' ')
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "setup: missing, and there is no apt-get to install it: $packages" >&2
	exit 0
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
		echo "setup: missing: $packages" >&2
		echo "setup: this user may not install it; try: sudo apt-get install --no-install-recommends $packages" >&2
		exit 0
	fi
	sudo='sudo -n'
fi
echo "setup: installing $packages" >&2
export DEBIAN_FRONTEND=noninteractive
# Packages that start a daemon must not do so here.
if ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq update ||
	! $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y --no-install-recommends $packages >&2; then
	echo "setup: apt-get could not install: $packages" >&2
fi
