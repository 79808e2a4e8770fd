# Runs as process 1 of fresh mount, process, IPC and host-name namespaces (and a network of its own,
# save while packages are fetched). First argument: `build` or `run`. Mounts the root, goes into it,
# does the recipe's part; a running root then stays until its owner closes standard input, by will or
# by dying: with process 1 the kernel ends everything in here, and the mounts go with the last of them.
#
#   enter.sh build|run RECIPE TOP LOWER SETUP [SOURCE:TARGET]...
set -euo pipefail

if [[ ${1:-} != inside ]]; then
	mode=$1 recipe=$2 top=$3 lower=$4 setup=$5
	shift 5
	# /proc is still the outer one, so this is the id by which the outside knows us.
	read -r pid _ </proc/self/stat
	echo "pid $pid"
	mount --make-rprivate /
	echo mail.example.test >/proc/sys/kernel/hostname
	if [[ $mode == run ]]; then
		# In memory: a start finds clean mailboxes, nothing is left behind, and fsync costs nothing.
		mount -t tmpfs -o "mode=755,size=${LAB_SIZE:-2g}" tmpfs "$top"
	fi
	mkdir -p "$top/upper" "$top/work" "$top/root"
	root=$top/root
	mount -t overlay overlay -o "lowerdir=$lower,upperdir=$top/upper,workdir=$top/work,index=off,metacopy=off" "$root"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for node in null zero full random urandom; do
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	mkdir "$root/dev/shm"
	chmod 1777 "$root/dev/shm"
	ln -s /proc/self/fd "$root/dev/fd"
	if [[ $mode == run ]]; then
		mount -t tmpfs -o mode=755 tmpfs "$root/run"
		mkdir -m 1777 "$root/run/lock"
	fi
	for bind in "$setup:/lab/setup" "$@"; do
		mkdir -p "$root${bind#*:}"
		mount --bind "${bind%%:*}" "$root${bind#*:}"
	done
	rm -f "$root/etc/resolv.conf"
	if [[ $mode == build ]]; then
		cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	else
		cp "$root/etc/resolv.conf.lab" "$root/etc/resolv.conf"
	fi
	cd "$root"
	mkdir -p .outside
	pivot_root . .outside
	umount -l /.outside
	rmdir /.outside
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive bash /lab/setup/enter.sh inside "$mode" "$recipe"
fi

mode=$2 recipe=$3
cd /

# await_socket PATH: until a Unix socket is there; at most 60 s.
await_socket() {
	local tries
	for ((tries = 0; tries < 3000; tries++)); do
		[[ ! -S $1 ]] || return 0
		sleep 0.02
	done
	echo "$1 did not appear" >&2
	return 1
}
# await_port PORT: until somebody listens on 127.0.0.1 or on all addresses; at most 60 s. Nobody is
# asked, so no server's log has a client that only looked.
await_port() {
	local tries line
	printf -v line ':%04X 00000000:0000 0A' "$1"
	for ((tries = 0; tries < 3000; tries++)); do
		! grep -q "$line" /proc/net/tcp || return 0
		sleep 0.02
	done
	echo "nobody listens on port $1" >&2
	return 1
}
# show_milter FOLDER: the milter's socket is in /lab/shared/milter for those outside, and here for the
# server: no one but root may write there, since MTAs look after the folders above a socket.
show_milter() {
	mkdir -p -m 755 /lab/shared/milter "$1"
	mount --bind /lab/shared/milter "$1"
}
preseed() { :; }
start() { :; }
. "/lab/setup/$recipe.sh"

case $mode in
build)
	preseed | debconf-set-selections
	# shellcheck disable=SC2086
	if ! apt-get -q -y -o Dpkg::Options::=--force-unsafe-io install $packages; then
		apt-get -q update
		apt-get -q -y -o Dpkg::Options::=--force-unsafe-io install $packages
	fi
	build
	echo ready
	;;
run)
	ip link set lo up
	rsyslogd >&2 </dev/null
	start >&2 </dev/null
	echo ready
	# Nothing is ever sent: this ends when the owner is gone. Meanwhile the shell reaps orphans.
	read -r _ || true
	;;
esac
