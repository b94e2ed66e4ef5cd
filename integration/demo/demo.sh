#!/bin/sh
# demo.sh: from nothing to an image in a registry, without root and without a
# daemon. It starts "bob registry serve" on a free port, builds the example in
# integration/demo into it as an unprivileged user, and shows what came out.
# As root it makes the user bobdemo, to show that bob needs no root.
set -eu
cd "$(dirname "$0")/../.."
integration/setup.sh demo

work=$(mktemp -d)
go build -o "$work/show" ./integration/demo/show
server=
stop() {
	# The registry writes until it has ended, and what is written anew isn't removed.
	[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	rm -rf "$work" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

user=$(id -un)
as=
if [ "$(id -u)" = 0 ]; then
	user=bobdemo
	if ! id bobdemo >/dev/null 2>&1; then
		echo "demo: creating the user bobdemo with its own range of IDs"
		useradd --no-create-home --home-dir /nonexistent --shell /bin/sh bobdemo
	fi
	grep -q '^bobdemo:' /etc/subuid || usermod --add-subuids 2000000000-2000065535 bobdemo
	grep -q '^bobdemo:' /etc/subgid || usermod --add-subgids 2000000000-2000065535 bobdemo
	as="setpriv --reuid bobdemo --regid bobdemo --clear-groups"
elif ! grep -q "^$user:" /etc/subuid; then
	echo "demo: $user has no range of IDs; try: sudo usermod --add-subuids 2000000000-2000065535 --add-subgids 2000000000-2000065535 $user" >&2
fi

cp -r integration/demo/example "$work/example"
cp bin/bob "$work/bob"
cp "$(command -v busybox)" "$work/example/busybox"
mkdir "$work/home" "$work/images"
chmod 755 "$work"
[ -z "$as" ] || chown -R bobdemo: "$work"
# The cache goes at the end: no process outlives the build to bring it to the disk.
bob="env HOME=$work/home BOB_CACHE_DIR=$work/cache BOB_CACHE_SYNC=false $as $work/bob"

$bob registry serve --listen 127.0.0.1:0 --dir "$work/images" >"$work/serving" 2>"$work/serve.log" &
server=$!
tries=0
until grep -q 'listening on' "$work/serving"; do
	tries=$((tries + 1))
	if [ $tries -gt 100 ] || ! kill -0 $server 2>/dev/null; then
		echo "demo: the registry did not start:" >&2
		cat "$work/serve.log" >&2
		exit 1
	fi
	sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$work/serving")
ref=${url#http://}/demo:1

echo "demo: the registry listens on $url; this is built as $user:"
sed 's/^/    /' "$work/example/Dockerfile"
echo "demo: bob build -t $ref example"
digest=$($bob build --progress plain -t "$ref" "$work/example" 2>"$work/build.log") || {
	cat "$work/build.log" >&2
	exit 1
}
cat "$work/build.log"

echo
echo "digest: $digest"
"$work/show" "$ref" "$work/build.log"
